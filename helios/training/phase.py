"""One phase of a recipe, as configuration: what it starts from, what it learns, how long, on which data.

A recipe is a function that returns a phase; the next phase is another one with a few fields replaced.
"""

from dataclasses import dataclass
from typing import Literal

from helios.checkpoints import Variant
from helios.conditioning.guidance import ClassifierFree, ClassifierFreeZeroStar, NoGuidance
from helios.errors import InputError
from helios.schedulers.shift import DynamicShift
from helios.training.adapt import FullTraining, LoraTraining
from helios.training.ema import Ema, NoEma
from helios.training.encode import EncodeSettings
from helios.training.methods.dmd import DmdConfig
from helios.training.methods.flow_matching import EmptyPast, NoPast
from helios.training.methods.gan import AdversaryConfig, NoAdversary
from helios.training.methods.ode import OdeLoss
from helios.training.methods.sparse import Excerpt, SparseFrames, WholeChunks, check_excerpts
from helios.training.methods.stage2 import OneLevel, PyramidDraws
from helios.training.methods.task import Tasks
from helios.training.methods.vae import Crop, VaeLoss, Whole
from helios.training.network import Bfloat16, BfloatWhereFast, Float32
from helios.training.noise_levels import LogitNormal, Uniform
from helios.training.optim import MuonConfig, OptimConfig
from helios.training.start import SmallModel
from helios.training.toyworld import ToyWindows, ToyWorld
from helios.training.trainer import RunConfig

AnyGuidance = NoGuidance | ClassifierFree | ClassifierFreeZeroStar


@dataclass(frozen=True, kw_only=True)
class Scratch:
    """Weights made on the spot, for a small model.

    Args:
        model: its sizes.
        corpus: whose captions the tokenizer is trained on.
    """

    model: SmallModel = SmallModel()
    corpus: ToyWorld = ToyWorld()


@dataclass(frozen=True, kw_only=True)
class After:
    """The checkpoint that another phase of the same workspace exported."""

    phase: str


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A checkpoint of Helios: a folder or a hub's name."""

    source: str


@dataclass(frozen=True, kw_only=True)
class Wan:
    """A Wan2.1-T2V checkpoint in the Diffusers layout; history patches are initialised from its loaded weights."""

    source: str


Start = Scratch | After | Checkpoint | Wan


@dataclass(frozen=True, kw_only=True)
class PreparedData:
    """What ``helios data prepare`` wrote.

    Args:
        folder: relative to the workspace, or absolute.
        chunks: cut clips into pieces of this many chunks; None leaves them whole.
    """

    folder: str = "data"
    chunks: int | None = None


@dataclass(frozen=True, kw_only=True)
class ToyLatents:
    """Clips of the toy world, encoded once with the VAE of the starting checkpoint and kept in the workspace.

    Args:
        folder: relative to the workspace; shared by all phases that name it.
        world: what is drawn.
        encode: how many, and how they are stored.
    """

    folder: str = "latents"
    world: ToyWorld = ToyWorld()
    encode: EncodeSettings = EncodeSettings(count=20_000)


@dataclass(frozen=True, kw_only=True)
class PromptPairs:
    """Trajectories of the starting checkpoint, recorded once and kept in the workspace, for ODE regression.

    Args:
        folder: relative to the workspace.
        prompts: a text file with one prompt per line, relative to the workspace, or None for the toy world's
            sentences.
        count: prompts.
        steps: the teacher's per level.
        chunks: of each video.
        guidance: of the teacher.
        negative: its negative prompt.
        seed: of the first prompt.
        batch: prompts at a time.
        dtype: of the stored states.
    """

    folder: str = "pairs"
    prompts: str | None = None
    count: int = 2000
    steps: tuple[int, ...] = (20, 20, 20)
    chunks: int = 5
    guidance: AnyGuidance = ClassifierFree(scale=5.0)
    negative: str = ""
    seed: int = 0
    batch: int = 8
    dtype: Literal["float16", "float32"] = "float16"


Data = PreparedData | ToyLatents | ToyWindows | PromptPairs


@dataclass(frozen=True, kw_only=True)
class StoredText:
    """Text states come from the data; the text encoder is only loaded for a few prompts."""


@dataclass(frozen=True, kw_only=True)
class EncodedText:
    """Captions are encoded at every step.

    Args:
        trained: train the text encoder along.
        dropout: share of captions replaced by the empty one, which then is the negative prompt of guidance.
    """

    trained: bool = False
    dropout: float = 0.0


@dataclass(frozen=True, kw_only=True)
class VaeStage:
    """Train the VAE.

    Args:
        loss, view: see :class:`helios.training.methods.vae.VaeTraining`.
        halved: share of the steps at half the height and width between encoder and decoder.
        measured: windows on which the latents' statistics are measured at the end.
    """

    loss: VaeLoss = VaeLoss()
    view: Whole | Crop = Crop()
    halved: float = 0.0
    measured: int = 256

    variant = Variant.BASE
    starts_from = (Variant.BASE,)


@dataclass(frozen=True, kw_only=True)
class PretrainStage:
    """Text to video on single chunks.

    Args:
        excerpts: which parts of a chunk the steps see, how often each, and under how much noise; their shares add up
            to 1.
        past: none, or the empty one of a video's first chunk, which tells frames when they are. Then the memory patches
            must have been initialised: start from another phase of this stage.
    Raises: InputError when they do not.
    """

    excerpts: tuple[Excerpt, ...] = (Excerpt(),)
    past: NoPast | EmptyPast = NoPast()

    variant = Variant.BASE
    starts_from = (Variant.BASE,)

    def __post_init__(self) -> None:
        check_excerpts(self.excerpts)


@dataclass(frozen=True, kw_only=True)
class AdaptStage:
    """Stage 1: chunks after their history. Exports Base.

    Args:
        tasks: branches and damages of the history.
        law: distribution of the noise level.
        sparse: steps on a few frames of the chunk.
    """

    tasks: Tasks = Tasks()
    law: LogitNormal | Uniform = LogitNormal()
    sparse: WholeChunks | SparseFrames = WholeChunks()

    variant = Variant.BASE
    starts_from = (Variant.BASE,)


@dataclass(frozen=True, kw_only=True)
class PyramidStage:
    """Stage 2: three resolutions. Exports Mid.

    Args:
        tasks: branches and damages of the history.
        draws: levels and noise levels per sample.
    """

    tasks: Tasks = Tasks()
    draws: PyramidDraws | OneLevel = PyramidDraws()

    variant = Variant.MID
    starts_from = (Variant.BASE, Variant.MID)


@dataclass(frozen=True, kw_only=True)
class StudentSampling:
    """How the distilled model will sample, and so how it rolls out in training.

    Args:
        steps: per level.
        amplify_first_chunk: twice the steps for a chunk without any past.
        shift: of its times.
        own_size: take the shift of a level from that level's own size, as the published training does. The published
            sampler takes it from the size before the level's enlargement; a model trained here is better off with the
            times it will meet, which is the default.
    """

    steps: tuple[int, ...] = (2, 2, 2)
    amplify_first_chunk: bool = True
    shift: DynamicShift = DynamicShift(kind="linear")
    own_size: bool = False


@dataclass(frozen=True, kw_only=True)
class OdeStage:
    """Stage 3a: jump to the ends of the teacher's trajectories."""

    loss: OdeLoss = OdeLoss()
    student: StudentSampling = StudentSampling()

    variant = Variant.DISTILLED
    starts_from = (Variant.MID, Variant.DISTILLED)


@dataclass(frozen=True, kw_only=True)
class Heads:
    """Sizes of the discriminator's heads and what they weigh.

    Args:
        taps: blocks that are read.
        width: of the heads.
        weights: of the terms.
    """

    taps: tuple[int, ...] = (5, 15, 25, 35)
    width: int = 768
    weights: AdversaryConfig = AdversaryConfig()


@dataclass(frozen=True, kw_only=True)
class DmdStage:
    """Stage 3b and c: distribution matching, with or without an adversary. Exports Distilled.

    Args:
        teacher: Base.
        config: of the distillation.
        student: how it samples.
        critic: what of the critic is trained: an adapter on the teacher (one dense model for both), or all of a copy.
        critic_optim: its optimiser.
        adversary: heads, or none.
        one_at_a_time: keep the frozen weights of whoever does not work on the host.
    """

    teacher: Start = After(phase="stage1_post")
    config: DmdConfig = DmdConfig()
    student: StudentSampling = StudentSampling()
    critic: FullTraining | LoraTraining = LoraTraining(rank=256, patches=(), full=())
    critic_optim: OptimConfig | MuonConfig = OptimConfig(lr=4e-7, betas=(0.0, 0.999), weight_decay=1e-3, clip=10.0)
    adversary: Heads | NoAdversary = NoAdversary()
    one_at_a_time: bool = False

    variant = Variant.DISTILLED
    starts_from = (Variant.MID, Variant.DISTILLED)


# Each names the variant that it exports and those that it can start from.
Stage = VaeStage | PretrainStage | AdaptStage | PyramidStage | OdeStage | DmdStage


@dataclass(frozen=True, kw_only=True)
class NoProbes:
    """Nothing is looked at but the loss."""


@dataclass(frozen=True, kw_only=True)
class RolloutProbes:
    """Losses per noise band on held-out clips, a short rollout and a long one.

    Args:
        clips: of the data's end, kept out of training, for the bands.
        prompts: sentences to roll out; empty for held-out sentences of the toy world, which are judged.
        count: how many toy sentences.
        chunks: of the short rollout.
        long_chunks: of the long one, for drift; 0 for none.
        long_count: sentences of the long one.
        steps: per level; None for the checkpoint's own.
        guidance: None for the checkpoint's own.
        negative: prompt of the unconditional pass.
    """

    clips: int = 16
    prompts: tuple[str, ...] = ()
    count: int = 16
    chunks: int = 3
    long_chunks: int = 20
    long_count: int = 4
    steps: tuple[int, ...] | None = None
    guidance: AnyGuidance | None = None
    negative: str = ""


@dataclass(frozen=True, kw_only=True)
class Phase:
    """A complete run.

    Args:
        name: of the phase and of its folder in the workspace.
        stage: the method and its settings.
        start: where the weights come from.
        data: what is learnt from.
        text: where text states come from.
        training: what of the transformer is trained.
        optim, ema: of the student.
        run: length, batch, saving.
        precision: of matrix products.
        dense: of frozen weights.
        recompute: recompute activations in the backward pass instead of keeping them (gradient checkpointing).
        parallel: how several devices share the work, under ``torchrun``.
        probes: what is looked at along the way.
    Raises: InputError for choices that contradict each other.
    """

    name: str
    stage: Stage
    start: Start
    data: Data
    text: StoredText | EncodedText = EncodedText()
    training: FullTraining | LoraTraining = FullTraining()
    optim: OptimConfig | MuonConfig = OptimConfig()
    ema: Ema | NoEma = NoEma()
    run: RunConfig = RunConfig(steps=1000)
    precision: Float32 | Bfloat16 | BfloatWhereFast = BfloatWhereFast()
    dense: Literal["float32", "bfloat16"] = "float32"
    recompute: bool = False
    parallel: Literal["replicated", "sharded"] = "replicated"
    probes: NoProbes | RolloutProbes = NoProbes()

    def __post_init__(self) -> None:
        self._check_data()
        trains_text = isinstance(self.text, EncodedText) and self.text.trained
        if trains_text and not (isinstance(self.stage, PretrainStage) and isinstance(self.training, FullTraining)):
            raise InputError(
                f"{self.name}: the text encoder is trained in full pretraining only: set text.trained=false"
            )
        if isinstance(self.stage, VaeStage) and not isinstance(self.training, FullTraining):
            raise InputError(f"{self.name}: a VAE is trained in full: set training=FullTraining")
        if isinstance(self.training, FullTraining) and self.dense != "float32":
            raise InputError(f"{self.name}: full training needs float32 weights: set dense=float32 or train an adapter")
        if self.run.keep.best_by and isinstance(self.probes, NoProbes):
            raise InputError(
                f"{self.name}: run.keep.best_by={self.run.keep.best_by!r} is a probe's number: set probes=RolloutProbes, "
                "or run.keep.best_by to none"
            )
        if isinstance(self.stage, DmdStage):
            self._check_distillation(self.stage)

    def _check_data(self) -> None:
        wanted = {VaeStage: ToyWindows, OdeStage: PromptPairs}.get(type(self.stage), PreparedData | ToyLatents)
        if not isinstance(self.data, wanted):
            kind, given = type(self.stage).__name__, type(self.data).__name__
            raise InputError(f"{self.name}: {kind} does not learn from {given}: choose data of another kind")
        if isinstance(self.data, ToyLatents) and isinstance(self.text, StoredText):
            raise InputError(f"{self.name}: toy latents hold no text states: set text=EncodedText")

    def _check_distillation(self, stage: DmdStage) -> None:
        if stage.one_at_a_time and not self.recompute:
            raise InputError(f"{self.name}: one_at_a_time moves weights while a graph waits: set recompute=true")
        if isinstance(stage.adversary, Heads) and stage.adversary.weights.start >= self.run.steps:
            raise InputError(
                f"{self.name}: the adversary begins at step {stage.adversary.weights.start} of {self.run.steps}: lower "
                "stage.adversary.weights.start, or set stage.adversary=NoAdversary"
            )
        if self.parallel == "sharded" and stage.student.amplify_first_chunk:
            raise InputError(
                f"{self.name}: with amplify_first_chunk ranks take different numbers of steps, which split weights "
                "cannot wait for: set parallel=replicated or stage.student.amplify_first_chunk=false"
            )
        if self.parallel == "sharded" and stage.one_at_a_time:
            raise InputError(
                f"{self.name}: one_at_a_time moves whole weights to the host, split ones stay where they are: "
                "set parallel=replicated or stage.one_at_a_time=false"
            )
