"""Complete small checkpoints with random weights, made offline in a second or two: for tests, benchmarks and demos.

The layout, class names and schedules are those of the released models, so everything that loads a released checkpoint
loads these. Every tensor is random (no norm weight is 1, no bias 0), so that an ignored parameter shows in a
comparison; scales keep activations and videos finite.
"""

import hashlib
import json
import shutil
from dataclasses import dataclass
from math import log, prod, sqrt
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from helios.checkpoints.layout import (
    DIFFUSERS_VERSION,
    MODEL_INDEX,
    SCHEDULER,
    SCHEDULER_CONFIG,
    TEXT_ENCODER,
    TOKENIZER,
    TRANSFORMER,
    VAE,
    WEIGHT_STEM,
    Shape,
    Variant,
    complete_transformer_config,
    published_model_index,
    published_scheduler,
    transformer_shapes,
)
from helios.checkpoints.presets import OwnSettings, write_own_settings
from helios.checkpoints.tensor_files import MAX_SHARD_BYTES, write_json, write_tensors
from helios.errors import InputError

_MAX_TEXT_TOKENS = 512
_SPECIALS = ("<pad>", "</s>", "<unk>")
_CAPTIONS = (
    "A red circle moves slowly from left to right across a dark blue field.",
    "Two green squares circle around a white triangle, then stop.",
    "The camera follows a fox through falling snow at dawn.",
    "Waves roll onto a quiet beach while clouds drift over the sea.",
    "A small robot pours tea into a porcelain cup on a wooden table.",
    "An old train crosses a stone bridge above a misty valley.",
    "Close-up of rain drops running down a window, city lights behind.",
    "A yellow kite climbs, dips and climbs again in strong wind.",
    "Children run through a field of tall sunflowers, handheld camera.",
    "A cat jumps onto a shelf, knocks over a vase and looks away.",
    "Time lapse of a flower opening, soft light, shallow depth of field.",
    "A blue square grows until it fills the whole frame.",
    "Smoke rises from a candle in a dark room; slow motion.",
    "Birds take off from a lake and turn towards the evening sun.",
)


@dataclass(frozen=True, kw_only=True)
class RandomPreset:
    """Sizes of a random checkpoint. All presets compress 8x in space and 4x in time like the released VAE.

    Args:
        heads, head_dim, rope_dim, ffn_dim, layers, freq_dim: of the transformer.
        text_dim: width of the text encoder.
        own: size and length that suit it.
        vae_base_dim: first width of the VAE.
    """

    heads: int
    head_dim: int
    rope_dim: tuple[int, int, int]
    ffn_dim: int
    layers: int
    freq_dim: int
    text_dim: int
    own: OwnSettings
    vae_base_dim: int = 8

    def transformer_config(self, **changes: Any) -> dict[str, Any]:
        """``transformer/config.json`` with these sizes; ``changes`` overrides any of the 20 keys."""
        sizes = {
            "num_attention_heads": self.heads,
            "attention_head_dim": self.head_dim,
            "rope_dim": list(self.rope_dim),
            "ffn_dim": self.ffn_dim,
            "num_layers": self.layers,
            "freq_dim": self.freq_dim,
            "text_dim": self.text_dim,
        }
        return complete_transformer_config({**sizes, **changes})


PRESETS = {
    "tiny": RandomPreset(
        heads=4,
        head_dim=20,
        rope_dim=(8, 6, 6),
        ffn_dim=112,
        layers=3,
        freq_dim=64,
        text_dim=32,
        own=OwnSettings(num_frames=66, height=64, width=128, random_weights=True),
    ),
    "small": RandomPreset(
        heads=4,
        head_dim=64,
        rope_dim=(24, 20, 20),
        ffn_dim=688,
        layers=6,
        freq_dim=128,
        text_dim=64,
        own=OwnSettings(num_frames=99, height=192, width=320, random_weights=True),
    ),
}


def write_random_checkpoint(
    path: str | Path,
    variant: Variant | str,
    *,
    seed: int = 0,
    preset: str = "tiny",
    gamma: float = 1 / 3,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    overwrite: bool = False,
    **transformer_changes: Any,
) -> Path:
    """Write a whole checkpoint with random weights; no network is used.

    Args:
        path: directory to make.
        variant: ``base``, ``mid`` or ``distilled``.
        seed: the same seed gives the same bytes, whatever the variant.
        preset: ``tiny`` (0.7 million numbers in the transformer) or ``small`` (width 256, for benchmarks).
        gamma: noise correlation between pyramid levels, 1/3 in the releases.
        max_shard_bytes: weights beyond this are sharded with an index.
        overwrite: replace a directory that is already there.
        transformer_changes: other values for keys of the transformer's configuration.
    Returns: the directory.
    Raises: InputError for an unknown variant or preset, or when the directory is not empty.
    """
    path, variant = Path(path), _variant(variant)
    if preset not in PRESETS:
        raise InputError(f"preset={preset!r} is unknown: use {' or '.join(PRESETS)}")
    if path.exists() and any(path.iterdir()):
        if not overwrite:
            raise InputError(f"{str(path)!r} is not empty: choose another directory or pass overwrite=True")
        shutil.rmtree(path)
    sizes = PRESETS[preset]
    write_json(path / MODEL_INDEX, published_model_index(variant))
    write_json(path / SCHEDULER / SCHEDULER_CONFIG, published_scheduler(variant, gamma=gamma))
    vocabulary = write_random_tokenizer(path / TOKENIZER)
    write_random_text_encoder(path / TEXT_ENCODER, vocabulary, sizes, seed=seed, max_shard_bytes=max_shard_bytes)
    write_random_vae(path / VAE, sizes, seed=seed, max_shard_bytes=max_shard_bytes)
    write_own_settings(path, sizes.own)
    config = sizes.transformer_config(**transformer_changes)
    write_random_transformer(path / TRANSFORMER, config, seed=seed, max_shard_bytes=max_shard_bytes)
    return path


def write_random_transformer(
    folder: Path, config: dict[str, Any], *, seed: int = 0, max_shard_bytes: int = MAX_SHARD_BYTES
) -> None:
    """Write ``transformer/`` with random weights for any configuration."""
    tensors = {key: _draw(key, shape, seed) for key, shape in transformer_shapes(config).items()}
    header = {"_class_name": "HeliosTransformer3DModel", "_diffusers_version": DIFFUSERS_VERSION}
    write_json(folder / "config.json", header | complete_transformer_config(config))
    write_tensors(folder, WEIGHT_STEM[TRANSFORMER], tensors, max_shard_bytes=max_shard_bytes)


def write_random_vae(
    folder: Path, sizes: RandomPreset, *, seed: int = 0, max_shard_bytes: int = MAX_SHARD_BYTES
) -> None:
    """Write ``vae/``: a Wan 2.1 causal VAE with four narrow stages, 16 latent channels and the released statistics."""
    from diffusers import AutoencoderKLWan

    with torch.device("meta"):
        vae = AutoencoderKLWan(
            base_dim=sizes.vae_base_dim,
            z_dim=16,
            dim_mult=[1, 2, 2, 2],
            num_res_blocks=1,
            temperal_downsample=[False, True, True],
        )
    tensors = {key: _draw(key, tuple(value.shape), seed) for key, value in vae.state_dict().items()}
    header = {"_class_name": "AutoencoderKLWan", "_diffusers_version": DIFFUSERS_VERSION}
    settings = {key: value for key, value in vae.config.items() if not key.startswith("_")}
    write_json(folder / "config.json", header | settings)
    write_tensors(folder, WEIGHT_STEM[VAE], tensors, max_shard_bytes=max_shard_bytes)


def write_random_text_encoder(
    folder: Path, vocabulary: int, sizes: RandomPreset, *, seed: int = 0, max_shard_bytes: int = MAX_SHARD_BYTES
) -> None:
    """Write ``text_encoder/``: a two-layer UMT5 encoder; as published, embeddings are stored as ``shared.weight`` only."""
    config = {
        "architectures": ["UMT5EncoderModel"],
        "d_ff": 2 * sizes.text_dim,
        "d_kv": sizes.text_dim // 4,
        "d_model": sizes.text_dim,
        "decoder_start_token_id": 0,
        "dropout_rate": 0.0,
        "dtype": "float32",
        "eos_token_id": 1,
        "feed_forward_proj": "gated-gelu",
        "is_encoder_decoder": True,
        "layer_norm_epsilon": 1e-6,
        "model_type": "umt5",
        "num_heads": 4,
        "num_layers": 2,
        "pad_token_id": 0,
        "relative_attention_max_distance": 16,
        "relative_attention_num_buckets": 8,
        "tie_word_embeddings": True,
        "vocab_size": vocabulary,
    }
    write_json(folder / "config.json", config)
    tensors = {key: _draw(key, shape, seed) for key, shape in text_encoder_shapes(config).items()}
    write_tensors(folder, WEIGHT_STEM[TEXT_ENCODER], tensors, max_shard_bytes=max_shard_bytes)


def text_encoder_shapes(config: dict[str, Any]) -> dict[str, Shape]:
    width, inner, hidden = config["d_model"], config["num_heads"] * config["d_kv"], config["d_ff"]
    shapes: dict[str, Shape] = {"shared.weight": (config["vocab_size"], width)}
    for index in range(config["num_layers"]):
        attention = f"encoder.block.{index}.layer.0"
        feed_forward = f"encoder.block.{index}.layer.1"
        shapes |= {f"{attention}.SelfAttention.{name}.weight": (inner, width) for name in "qkv"}
        shapes |= {
            f"{attention}.SelfAttention.o.weight": (width, inner),
            f"{attention}.SelfAttention.relative_attention_bias.weight": (
                config["relative_attention_num_buckets"],
                config["num_heads"],
            ),
            f"{attention}.layer_norm.weight": (width,),
            f"{feed_forward}.DenseReluDense.wi_0.weight": (hidden, width),
            f"{feed_forward}.DenseReluDense.wi_1.weight": (hidden, width),
            f"{feed_forward}.DenseReluDense.wo.weight": (width, hidden),
            f"{feed_forward}.layer_norm.weight": (width,),
        }
    return shapes | {"encoder.final_layer_norm.weight": (width,)}


def write_random_tokenizer(folder: Path) -> int:
    """Write ``tokenizer/``: a unigram T5 tokenizer trained here on a few captions (pad 0, eos 1, unk 2).

    Returns: the size of its vocabulary.
    """
    from tokenizers import Tokenizer, decoders, pre_tokenizers, processors, trainers
    from tokenizers.models import Unigram

    tokenizer = Tokenizer(Unigram())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.WhitespaceSplit(),
            pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="always", split=True),
        ]
    )
    tokenizer.decoder = decoders.Metaspace(replacement="▁", prepend_scheme="always", split=True)
    trainer = trainers.UnigramTrainer(
        vocab_size=200, special_tokens=list(_SPECIALS), unk_token="<unk>", shrinking_factor=0.75, show_progress=False
    )
    tokenizer.train_from_iterator(_CAPTIONS, trainer)
    tokenizer.model = Unigram(_settled_pieces(tokenizer), unk_id=2, byte_fallback=False)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    write_json(folder / "special_tokens_map.json", names)
    settings = {"additional_special_tokens": [], "extra_ids": 0, "model_max_length": _MAX_TEXT_TOKENS}
    write_json(folder / "tokenizer_config.json", names | settings | {"tokenizer_class": "T5TokenizerFast"})
    return tokenizer.get_vocab_size()


def _settled_pieces(tokenizer: Any) -> list[tuple[str, float]]:
    """The trained pieces, scored anew by how often they occur; the trainer's own scores differ from run to run."""
    trained = {piece for piece, _ in json.loads(tokenizer.to_str())["model"]["vocab"]} - set(_SPECIALS)
    text = " ".join("▁" + "▁".join(caption.split()) for caption in _CAPTIONS)
    scores = {piece: round(log(text.count(piece) / len(text)), 6) for piece in trained}
    return [(piece, 0.0) for piece in _SPECIALS] + sorted(scores.items(), key=lambda item: (-item[1], item[0]))


def _draw(key: str, shape: Shape, seed: int) -> Tensor:
    """One random tensor. Its generator is keyed by seed and name, so no tensor depends on the order of drawing."""
    digest = hashlib.sha256(f"{seed}/{key}".encode()).digest()
    generator = torch.Generator().manual_seed(int.from_bytes(digest[:7], "little"))
    centre, spread = distribution(key, shape)
    return torch.randn(shape, generator=generator) * spread + centre


def distribution(key: str, shape: Shape) -> tuple[float, float]:
    """Mean and standard deviation that keep the activations of a deep random network near unit size."""
    name = key.split(".")[-1]
    if "history_key_scale" in key:
        return 1.0, 0.5
    if "scale_shift_table" in key:
        return 0.0, 0.3
    if "relative_attention_bias" in key or key == "shared.weight":
        return 0.0, 1.0
    if name == "gamma" or (name == "weight" and len(shape) == 1):
        return 1.0, 0.15
    if len(shape) == 1:
        return 0.0, 0.1
    fan_in = prod(shape[1:])
    if key.endswith("SelfAttention.q.weight"):  # UMT5 does not scale its attention scores
        return 0.0, 1 / sqrt(fan_in * sqrt(fan_in))
    return 0.0, 1 / sqrt(fan_in)


def _variant(variant: Variant | str) -> Variant:
    try:
        return Variant(variant)
    except ValueError as error:
        raise InputError(f"variant={str(variant)!r} is unknown: use base, mid or distilled") from error
