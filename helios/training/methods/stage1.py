"""Stage 1, autoregressive adaptation: the same flow matching, now with a past (paper arXiv 2603.04379, section 3)."""

from collections.abc import Sequence

from torch import Tensor

from helios.shapes import Geometry
from helios.training.clips import LatentClip
from helios.training.methods.flow_matching import FlowPoint, squared_error
from helios.training.methods.sparse import SparseFrames, WholeChunks
from helios.training.methods.task import Tasks, make_task
from helios.training.network import Network
from helios.training.noise_levels import LogitNormal, NoiseLaw
from helios.training.player import Player
from helios.training.seeds import Draws
from helios.training.text import Captions


class Stage1:
    """A chunk is learnt from its damaged history; the history's damage is never told to the network.

    Args:
        student, network, captions, geometry: as in :class:`helios.training.methods.flow_matching.FlowMatching`.
        tasks: branches and damages of the history.
        law: distribution of the noise level.
        sparse: steps on a few frames of the chunk, after its whole history.
    """

    def __init__(
        self,
        student: Player,
        network: Network,
        captions: Captions,
        geometry: Geometry,
        tasks: Tasks = Tasks(),
        law: NoiseLaw = LogitNormal(),
        sparse: WholeChunks | SparseFrames = WholeChunks(),
    ):
        self.players = (student,)
        self.network, self.captions, self.geometry = network, captions, geometry
        self.tasks, self.law, self.sparse = tasks, law, sparse

    def turns(self, step: int) -> tuple[str, ...]:
        """The one player moves in every step."""
        return (self.players[0].name,)

    def backward(self, player: str, items: Sequence[LatentClip], draws: Draws, scale: float) -> dict[str, Tensor]:
        """See :class:`helios.training.methods.base.Method`."""
        task = make_task(
            items,
            draws,
            tasks=self.tasks,
            captions=self.captions,
            geometry=self.geometry,
            device=self.network.device,
        )
        text = self.network.encode_text(task.text_BSE)
        history = self.network.encode_history(task.streams(self.geometry))
        target_BCTHW, frames = self.sparse.take(task.target_BCTHW, self.geometry.positions.noisy, draws)
        point = FlowPoint.draw(target_BCTHW, self.law, draws)
        velocity = self.network.velocity(point.x_BCTHW, point.timestep_B, text, history, frames=frames)
        loss = squared_error(velocity, point.velocity_BCTHW)
        (loss * scale).backward()
        return {"loss": loss.detach()}
