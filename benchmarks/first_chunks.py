"""First chunks of the toy world as a model reads them: clean latents, noise, an empty past. Shared by the scripts that ask a
model what it knows before it makes a video.

B batch, C channels, T latent frames, H W latent height and width, S text tokens, E width of the text encoder.
"""

import torch
from torch import Tensor

from helios.checkpoints import inspect, load_prompt_encoder, load_transformer, load_vae, resolve
from helios.data.toy import ToyClips
from helios.models.transformer.context import TextContext
from helios.training.methods.flow_matching import EmptyPast, blend
from helios.training.methods.sparse import Excerpt
from helios.training.methods.vae import to_signed
from helios.training.network import Network


class FirstChunks:
    """A model with the first chunks of some clips, on the CPU in float32.

    Args:
        model: a checkpoint, as for ``helios generate``.
        clips: of one chunk or more.
        count: how many of them.
        shrink: 1, 2 or 4, as the levels of the pyramid.
    Raises: InputError for another ``shrink``, before anything loads.
    """

    def __init__(self, model: str, clips: ToyClips, count: int, shrink: int):
        excerpt, info = Excerpt(shrink=shrink), inspect(resolve(model))
        self.vae, self._encoder = load_vae(info, "cpu"), load_prompt_encoder(info, "cpu", torch.float32)
        self._network = Network(module=load_transformer(info, "cpu", torch.float32).eval())
        pixels = (to_signed(torch.from_numpy(clips.chunk(k, 0))[None]) for k in range(count))
        whole_BCTHW = torch.cat([self.vae.normalize(self.vae.encode_moments(x)[0]) for x in pixels])
        self._past = EmptyPast().before(whole_BCTHW, shrink, self._network, info.geometry)
        self.clean_BCTHW = excerpt.shrunk(whole_BCTHW)
        self.noise_BCTHW = torch.randn(self.clean_BCTHW.shape, generator=torch.Generator().manual_seed(0))

    def at(self, sigma: float) -> Tensor:
        """The chunks with noise."""
        return blend(self.clean_BCTHW, self.noise_BCTHW, torch.full((len(self.clean_BCTHW),), sigma))

    def read(self, sentences: list[str]) -> TextContext:
        """What the transformer sees of one sentence per chunk."""
        return self._network.encode_text(self._encoder.encode(sentences))

    def velocity(self, x_BCTHW: Tensor, sigma: float, text: TextContext) -> Tensor:
        """The model's, at one noise level."""
        return self._network.velocity(x_BCTHW, torch.full((len(x_BCTHW),), 1000 * sigma), text, self._past)
