"""A small model before its training: tokenizer, text encoder, VAE and transformer with weights made to be trained.

(:mod:`helios.checkpoints.random` makes models for tests, whose weights are random on purpose everywhere.)
"""

import json
import math
import re
import string
from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import nn

from helios.checkpoints import Variant, save
from helios.checkpoints.presets import OwnSettings
from helios.errors import InputError
from helios.models.transformer.config import TransformerConfig
from helios.models.transformer.model import HeliosTransformer3DModel
from helios.models.vae import HeliosVAE
from helios.schedulers.config import SchedulerConfig
from helios.schedulers.shift import DynamicShift
from helios.schedulers.stages import SingleStage

_SPECIALS = ("<pad>", "</s>", "<unk>")
_SPACE = "\u2581"


@dataclass(frozen=True, kw_only=True)
class SmallVae:
    """An ``AutoencoderKLWan``: three widths halve height and width twice, and time twice.

    Args:
        width: of the first stage.
        widths: multiples of it, one per stage.
        channels: of a latent.
        blocks: residual blocks per stage.
    """

    width: int = 16
    widths: tuple[int, ...] = (1, 2, 4)
    channels: int = 8
    blocks: int = 1

    @property
    def spatial(self) -> int:
        """Pixels per latent along height and width."""
        return 2 ** (len(self.widths) - 1)

    def build(self) -> HeliosVAE:
        """The VAE, with statistics that change nothing until they are measured."""
        times = [False] * (len(self.widths) - 3) + [True, True]
        config = {
            "base_dim": self.width,
            "dim_mult": list(self.widths),
            "z_dim": self.channels,
            "num_res_blocks": self.blocks,
            "temperal_downsample": times,
            "latents_mean": [0.0] * self.channels,
            "latents_std": [1.0] * self.channels,
            "scale_factor_spatial": self.spatial,
            "scale_factor_temporal": 4,
        }
        vae = HeliosVAE.from_config(config)
        initialise_vae(vae.module, self.channels)
        return vae


@dataclass(frozen=True, kw_only=True)
class SmallText:
    """A UMT5 encoder and its tokenizer.

    Args:
        width, layers, heads, hidden: of the encoder.
        pieces: largest vocabulary.
        tokens: longest prompt, and what prompts are padded to, in training and in sampling.
    """

    width: int = 128
    layers: int = 2
    heads: int = 4
    hidden: int = 256
    pieces: int = 512
    tokens: int = 64

    def build(self, vocabulary: int) -> nn.Module:
        """The encoder."""
        from transformers import UMT5Config, UMT5EncoderModel

        config = UMT5Config(
            vocab_size=vocabulary,
            d_model=self.width,
            d_kv=self.width // self.heads,
            d_ff=self.hidden,
            num_layers=self.layers,
            num_heads=self.heads,
            relative_attention_num_buckets=16,
            relative_attention_max_distance=64,
            dropout_rate=0.0,
            feed_forward_proj="gated-gelu",
            pad_token_id=0,
            eos_token_id=1,
            decoder_start_token_id=0,
            tie_word_embeddings=True,
        )
        return UMT5EncoderModel(config)


@dataclass(frozen=True, kw_only=True)
class SmallTransformer:
    """Sizes of the transformer; heads of 32 channels, as in the toy recipe, by default."""

    heads: int = 6
    head_width: int = 32
    rope: tuple[int, int, int] = (12, 10, 10)
    hidden: int = 768
    layers: int = 7
    frequencies: int = 128

    def config(self, *, channels: int, text_width: int) -> TransformerConfig:
        """Its configuration."""
        return TransformerConfig(
            num_attention_heads=self.heads,
            attention_head_dim=self.head_width,
            in_channels=channels,
            out_channels=channels,
            text_dim=text_width,
            freq_dim=self.frequencies,
            ffn_dim=self.hidden,
            num_layers=self.layers,
            rope_dim=self.rope,
        )

    def build(self, *, channels: int, text_width: int) -> HeliosTransformer3DModel:
        """The transformer, ready for training from nothing."""
        model = HeliosTransformer3DModel(**asdict(self.config(channels=channels, text_width=text_width)))
        initialise(model)
        return model


@dataclass(frozen=True, kw_only=True)
class SmallModel:
    """A whole small model.

    Args:
        vae, text, transformer: its parts.
        height, width: pixels it will be trained at.
        num_frames: what it makes by default.
        guidance: the scale it is best sampled with, where the variant is guided; None for the published one.
        seed: of the first weights.
    """

    vae: SmallVae = SmallVae()
    text: SmallText = SmallText()
    transformer: SmallTransformer = SmallTransformer()
    height: int = 64
    width: int = 64
    num_frames: int = 99
    guidance: float | None = None
    seed: int = 0

    def write(self, folder: Path, corpus: Iterable[str]) -> Path:
        """Write the untrained model as a Base checkpoint.

        Args:
            folder: of the checkpoint.
            corpus: captions to train the tokenizer on.
        """
        torch.manual_seed(self.seed)
        with TemporaryDirectory() as scratch:
            parts = Path(scratch)
            vocabulary = train_tokenizer(parts / "tokenizer", corpus, self.text)
            self.text.build(vocabulary).save_pretrained(parts / "text_encoder")
            vae = self.vae.build()
            channels, text_width = self.vae.channels, self.text.width
            return save(
                folder,
                variant=Variant.BASE,
                scheduler=base_scheduler(),
                transformer=self.transformer.build(channels=channels, text_width=text_width),
                vae=vae,
                text_encoder=parts / "text_encoder",
                tokenizer=parts / "tokenizer",
                own=OwnSettings(
                    height=self.height, width=self.width, num_frames=self.num_frames, guidance=self.guidance
                ),
            )


def base_scheduler() -> SchedulerConfig:
    """The schedule of a Base model: one resolution, UniPC, exponential shift."""
    return SchedulerConfig(solver="unipc", stages=SingleStage(), shift=DynamicShift(kind="exponential"))


@torch.no_grad()
def initialise(model: nn.Module) -> None:
    """Weights to train a transformer from nothing: Xavier, and blocks that start as the identity (Peebles and Xie 2023).

    Shifts, scales and gates begin at zero, and so does the output: the first prediction is zero velocity.
    """
    for module in model.modules():
        if isinstance(module, nn.Linear):
            nn.init.xavier_uniform_(module.weight)
            nn.init.zeros_(module.bias)
        if isinstance(module, nn.Conv3d):
            nn.init.xavier_uniform_(module.weight.flatten(1))
            nn.init.zeros_(module.bias)
        if hasattr(module, "scale_shift_table"):
            nn.init.zeros_(module.scale_shift_table)
    embedder = model.condition_embedder
    for layer in (embedder.time_embedder.linear_1, embedder.time_embedder.linear_2):
        nn.init.normal_(layer.weight, std=0.02)
    nn.init.zeros_(embedder.time_proj.weight)
    nn.init.zeros_(model.proj_out.weight)


@torch.no_grad()
def initialise_vae(module: nn.Module, channels: int) -> None:
    """Weights to train a small VAE from nothing: pictures pass through it from the first step.

    Every convolution begins close to an orthogonal map of the present pixel, residual branches at zero, and the latents'
    standard deviation at 0.05. With PyTorch's own beginning the first some hundred steps are lost in the latents' noise.
    Convolutions that halve time begin as means of two frames and those that double it repeat a frame, so that the first
    latent of a clip, which passes none of them, and the later ones mean the same.

    Args:
        module: an ``AutoencoderKLWan``.
        channels: of a latent.
    """
    for convolution in module.modules():
        if isinstance(convolution, (nn.Conv2d, nn.Conv3d)):
            _pass_through(convolution)
    for name, convolution in module.named_modules():
        if name.endswith("time_conv"):
            _keep_time(convolution)
    for name, parameter in module.named_parameters():
        if ".conv2." in name or ".proj." in name:
            nn.init.zeros_(parameter)
    module.quant_conv.weight[channels:] *= 0.1
    module.quant_conv.bias[channels:] = -6.0


def _pass_through(convolution: nn.Conv2d | nn.Conv3d, straight: float = 0.95) -> None:
    """Variance is kept: ``straight`` of the amplitude through the tap of the present pixel, the rest at random."""
    weight, taps = convolution.weight, convolution.kernel_size
    nn.init.zeros_(convolution.bias)
    if max(convolution.stride) > 1:
        nn.init.orthogonal_(weight, gain=0.7)
        if isinstance(convolution, nn.Conv2d):  # and the mean of the four pixels
            weight[:, :, :2, :2] += 0.25 * torch.eye(len(weight))[:, :, None, None]
        return
    nn.init.normal_(weight, std=math.sqrt((1 - straight**2) / weight[0].numel()))
    outputs, inputs = weight.shape[:2]
    centre = nn.init.orthogonal_(torch.empty(outputs, inputs))
    present = tuple(size // 2 for size in taps)
    present = (taps[0] - 1, *present[1:]) if len(taps) == 3 else present  # causal: the present frame is the last tap
    weight[(slice(None), slice(None), *present)] += straight * centre


def _keep_time(convolution: nn.Conv3d) -> None:
    """A mean of two frames where time is halved; every frame twice where it is doubled."""
    outputs, inputs = convolution.weight.shape[:2]
    nn.init.normal_(convolution.weight, std=0.02)
    identity = torch.eye(inputs)[:, :, None, None]
    if convolution.stride[0] == 2:
        convolution.weight[:, :, 1:] += 0.5 * identity.unsqueeze(2)
    else:
        convolution.weight[:, :, -1] += identity.repeat(outputs // inputs, 1, 1, 1)


def train_tokenizer(folder: Path, corpus: Iterable[str], config: SmallText) -> int:
    """Make a unigram T5 tokenizer from captions and write it (pad 0, end 1, unknown 2); nothing is downloaded.

    Its pieces are the corpus' most frequent words, written small and with a capital, and single characters for all
    others. (The trainer of the tokenizer library finds no words in a corpus of so few: it leaves common ones in
    letters, at twice the length.)

    Returns: the size of its vocabulary.
    Raises: InputError when the corpus is empty.
    """
    from tokenizers import Tokenizer, decoders, pre_tokenizers, processors
    from tokenizers.models import Unigram

    tokenizer = Tokenizer(Unigram(unigram_pieces(corpus, config.pieces), unk_id=2, byte_fallback=False))
    space = {"replacement": _SPACE, "prepend_scheme": "always", "split": True}
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Metaspace(**space)]
    )
    tokenizer.decoder = decoders.Metaspace(**space)
    tokenizer.post_processor = processors.TemplateProcessing(
        single="$A </s>", pair="$A </s> $B </s>", special_tokens=[("</s>", 1)]
    )
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    names = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    settings = {"extra_ids": 0, "model_max_length": config.tokens, "tokenizer_class": "T5TokenizerFast"}
    (folder / "special_tokens_map.json").write_text(json.dumps(names, indent=2))
    (folder / "tokenizer_config.json").write_text(json.dumps({**names, **settings}, indent=2))
    return tokenizer.get_vocab_size()


def unigram_pieces(corpus: Iterable[str], count: int) -> list[tuple[str, float]]:
    """(piece, log-probability), specials first; at most about ``count`` of them.

    Raises: InputError when the corpus is empty.
    """
    words = Counter(word.lower() for line in corpus for word in re.findall(r"\w+|[^\w\s]", line))
    if not words:
        raise InputError("there are no captions to make a tokenizer from: pass at least one")
    characters = sorted(set(string.ascii_letters + string.digits + string.punctuation))
    room = max(0, count - len(_SPECIALS) - 1 - len(characters)) // 2
    total = sum(words.values())
    pieces = {}
    for word, times in sorted(words.items(), key=lambda item: (-item[1], item[0]))[:room]:
        for form in dict.fromkeys((word, word.capitalize())):
            pieces[_SPACE + form if word[0].isalnum() else form] = round(math.log(times / total), 4)
    letters = {character: -20.0 for character in (_SPACE, *characters) if character not in pieces}
    return [(special, 0.0) for special in _SPECIALS] + list(pieces.items()) + list(letters.items())
