"""CLIP's image tower and the LAION aesthetic head.

B batch, C channels, H W pixels, D width, E embedding.
"""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from helios.bench.networks.vit import Transformer
from helios.errors import InputError

MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)
SIDE = 224


@dataclass(frozen=True, kw_only=True)
class TowerConfig:
    """Sizes of an image tower; the defaults are ViT-L/14."""

    side: int = SIDE
    patch: int = 14
    width: int = 1024
    layers: int = 24
    heads: int = 16
    embedding: int = 768

    @property
    def patches(self) -> int:
        return (self.side // self.patch) ** 2


class ImageTower(nn.Module):
    """ViT image encoder with OpenAI's keys (``visual.`` stripped); returns projected embeddings."""

    def __init__(self, config: TowerConfig):
        super().__init__()
        width = config.width
        self.conv1 = nn.Conv2d(3, width, config.patch, stride=config.patch, bias=False)
        self.class_embedding = nn.Parameter(torch.zeros(width))
        self.positional_embedding = nn.Parameter(torch.zeros(config.patches + 1, width))
        self.ln_pre = nn.LayerNorm(width)
        self.transformer = Transformer(width, config.layers, config.heads)
        self.ln_post = nn.LayerNorm(width)
        self.proj = nn.Parameter(torch.zeros(width, config.embedding))

    def forward(self, pixels_BCHW: Tensor) -> Tensor:
        """[B, E] embeddings, not normalised, of normalised pictures (:func:`preprocess`)."""
        patches_BLD = self.conv1(pixels_BCHW).flatten(2).transpose(1, 2)
        first_B1D = self.class_embedding.expand(len(patches_BLD), 1, -1)
        x_BLD = torch.cat([first_B1D, patches_BLD], 1) + self.positional_embedding
        x_BLD = self.transformer(self.ln_pre(x_BLD))
        return self.ln_post(x_BLD[:, 0]) @ self.proj


class AestheticHead(nn.Linear):
    """LAION's aesthetic predictor v1: one linear layer on the normalised embedding, about 1 to 10."""

    def __init__(self, embedding: int = 768):
        super().__init__(embedding, 1)


def preprocess(frames_BHWC: Tensor, *, side: int = SIDE, clamp: bool) -> Tensor:
    """Pictures as CLIP and ViCLIP want them.

    The short side becomes ``side`` by bicubic interpolation *without antialiasing*, the centre is cropped, values are
    divided by 255 and normalised.

    Args:
        frames_BHWC: uint8 RGB.
        clamp: round and clamp after the resize, as happens when the published semantic scripts resize uint8 frames;
            the aesthetic script resizes float frames and keeps the bicubic overshoot.
    Returns: float32 [B, 3, side, side].
    """
    pixels_BCHW = frames_BHWC.permute(0, 3, 1, 2).float()
    height, width = pixels_BCHW.shape[-2:]
    if height <= width:
        size = (side, int(side * width / height))
    else:
        size = (int(side * height / width), side)
    pixels_BCHW = nn.functional.interpolate(pixels_BCHW, size, mode="bicubic", align_corners=False, antialias=False)
    if clamp:
        pixels_BCHW = pixels_BCHW.clamp(0, 255).round()
    top, left = (round((have - side) / 2.0) for have in size)
    pixels_BCHW = pixels_BCHW[..., top : top + side, left : left + side] / 255
    mean, std = (torch.tensor(values, device=pixels_BCHW.device).view(3, 1, 1) for values in (MEAN, STD))
    return (pixels_BCHW - mean) / std


_FROM_TRANSFORMERS = (
    ("vision_model.embeddings.class_embedding", "class_embedding"),
    ("vision_model.embeddings.patch_embedding.weight", "conv1.weight"),
    ("vision_model.embeddings.position_embedding.weight", "positional_embedding"),
    ("vision_model.pre_layrnorm.", "ln_pre."),
    ("vision_model.post_layernorm.", "ln_post."),
    ("vision_model.encoder.layers.", "transformer.resblocks."),
    (".layer_norm1.", ".ln_1."),
    (".layer_norm2.", ".ln_2."),
    (".self_attn.out_proj.", ".attn.out_proj."),
    (".mlp.fc1.", ".mlp.c_fc."),
    (".mlp.fc2.", ".mlp.c_proj."),
)


def tower_state(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The image tower's entries of a CLIP state dict, in OpenAI's names, from OpenAI's or Transformers' layout."""
    if any(name.startswith("visual.") for name in state):
        return {name.removeprefix("visual."): value for name, value in state.items() if name.startswith("visual.")}
    if "visual_projection.weight" in state:
        return _from_transformers(state)
    raise InputError("these CLIP weights have neither visual.* nor vision_model.* entries: pass ViT-L/14's own file")


def _from_transformers(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    found = {"proj": state["visual_projection.weight"].T}
    parts: dict[str, dict[str, Tensor]] = {}
    for name, value in state.items():
        if not name.startswith("vision_model.") or name.endswith("position_ids"):
            continue
        for old, new in _FROM_TRANSFORMERS:
            name = name.replace(old, new)
        stem, _, leaf = name.partition(".self_attn.")
        if leaf:
            projection, kind = leaf.split("_proj.")
            parts.setdefault(f"{stem}.attn.in_proj_{kind}", {})[projection] = value
        else:
            found[name] = value
    for name, by_projection in parts.items():
        found[name] = torch.cat([by_projection[projection] for projection in "qkv"])
    return found
