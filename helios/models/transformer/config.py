"""Configuration of the transformer: the twenty keys of ``transformer/config.json``, checked.

K head width, D model width (heads * K).
"""

from dataclasses import dataclass, fields
from typing import Any

from helios.errors import InputError

PATCH = (1, 2, 2)
QK_NORM = "rms_norm_across_heads"


@dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """Shape and options of a Helios transformer; the defaults are the released 14B models.

    Args:
        patch_size: frames, rows and columns of a token. The history streams are laid out for (1, 2, 2) only.
        num_attention_heads, attention_head_dim: N and K.
        in_channels, out_channels: latent channels; a falsy ``out_channels`` means ``in_channels``.
        text_dim: width of the text encoder.
        freq_dim: width of the timestep sinusoid, even.
        ffn_dim: hidden width of the feed-forward.
        num_layers: blocks.
        cross_attn_norm: whether cross attention has a norm (with weight and bias) before it.
        qk_norm: the norm of queries and keys. The published code ignores this key and always builds this one norm.
        eps: of every norm.
        added_kv_proj_dim: weights that the published code creates and never uses; only None is taken here.
        rope_dim: channels of a head for time, row, column; even, and K together.
        rope_theta: base of the rotary frequencies.
        guidance_cross_attn: whether only the noisy tokens attend to the text.
        zero_history_timestep: whether history tokens are modulated with timestep 0.
        has_multi_term_memory_patch: whether the model can read history.
        is_amplify_history: whether self attention has a learned gain on the keys of history tokens.
        history_scale_mode: one gain ``per_head`` or one ``scalar``.
    Raises: InputError for values that the published code would silently ignore or trip over.
    """

    patch_size: tuple[int, ...] = PATCH
    num_attention_heads: int = 40
    attention_head_dim: int = 128
    in_channels: int = 16
    out_channels: int | None = 16
    text_dim: int = 4096
    freq_dim: int = 256
    ffn_dim: int = 13824
    num_layers: int = 40
    cross_attn_norm: bool = True
    qk_norm: str | None = QK_NORM
    eps: float = 1e-6
    added_kv_proj_dim: int | None = None
    rope_dim: tuple[int, ...] = (44, 42, 42)
    rope_theta: float = 10000.0
    guidance_cross_attn: bool = True
    zero_history_timestep: bool = True
    has_multi_term_memory_patch: bool = True
    is_amplify_history: bool = False
    history_scale_mode: str = "per_head"

    def __post_init__(self):
        if tuple(self.patch_size) != PATCH:
            raise InputError(f"patch_size={self.patch_size} is not supported: history is laid out for {PATCH}")
        if self.qk_norm != QK_NORM:
            raise InputError(f"qk_norm={self.qk_norm!r} would be ignored: only {QK_NORM!r} exists")
        if self.added_kv_proj_dim is not None:
            raise InputError(
                f"added_kv_proj_dim={self.added_kv_proj_dim} would add weights that nothing uses: set null"
            )
        if self.history_scale_mode not in ("per_head", "scalar"):
            raise InputError(f"history_scale_mode={self.history_scale_mode!r} is not known: use 'per_head' or 'scalar'")
        self._check_sizes()

    def _check_sizes(self) -> None:
        sizes = ("num_attention_heads", "attention_head_dim", "in_channels", "text_dim", "freq_dim", "ffn_dim")
        for name in (*sizes, "num_layers"):
            if getattr(self, name) < 1:
                raise InputError(f"{name}={getattr(self, name)} must be 1 or more")
        if self.freq_dim % 2:
            raise InputError(f"freq_dim={self.freq_dim} must be even: half are cosines, half are sines")
        axes = tuple(self.rope_dim)
        if len(axes) != 3 or any(a < 2 or a % 2 for a in axes) or sum(axes) != self.attention_head_dim:
            raise InputError(
                f"rope_dim={axes} must be three even numbers that add up to attention_head_dim={self.attention_head_dim}"
            )

    @staticmethod
    def from_dict(config: dict[str, Any]) -> "TransformerConfig":
        """From a parsed ``config.json``; keys that Diffusers adds for itself (they begin with ``_``) are passed over.

        Raises: InputError for a key that is not one of the twenty.
        """
        known = {field.name for field in fields(TransformerConfig)}
        given = {key: value for key, value in config.items() if not key.startswith("_")}
        unknown = sorted(set(given) - known)
        if unknown:
            raise InputError(f"transformer config has unknown keys {unknown}: remove them or update helios")
        tuples = {key: tuple(value) if isinstance(value, list) else value for key, value in given.items()}
        return TransformerConfig(**tuples)

    @property
    def width(self) -> int:
        """D: width of a token."""
        return self.num_attention_heads * self.attention_head_dim

    @property
    def latent_channels_out(self) -> int:
        return self.out_channels or self.in_channels
