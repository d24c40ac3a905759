"""From a phase to objects: networks, players, data, method, probes."""

import copy
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path

import torch
from torch import nn

from helios.checkpoints import (
    CheckpointInfo,
    Variant,
    inspect,
    load_prompt_encoder,
    load_text_encoder,
    load_transformer,
    load_vae,
)
from helios.data.identity import identities, latents_identity, transformer_identity
from helios.data.loader import PreparedClips
from helios.errors import InputError
from helios.extras import load_extra
from helios.models.text_encoder import load_tokenizer, prompt_tokens
from helios.models.vae import HeliosVAE
from helios.sampling.plan import SamplingPlan
from helios.schedulers.stages import PyramidStages, SingleStage
from helios.training.adapt import FullTraining, LoraTraining, Training
from helios.training.clips import Dataset
from helios.training.config import to_plain
from helios.training.encode import EncodedClips, all_encoded, encode_source
from helios.training.methods.base import Method
from helios.training.methods.dmd import CRITIC, STUDENT, Dmd
from helios.training.methods.flow_matching import FlowMatching
from helios.training.methods.gan import SMALLEST, Adversary, Discriminator, NoAdversary
from helios.training.methods.ode import OdeRegression
from helios.training.methods.stage1 import Stage1
from helios.training.methods.stage2 import Stage2
from helios.training.methods.vae import VaeTraining
from helios.training.network import Network
from helios.training.pairs import OdePairs, PairSettings, all_recorded, record_pairs, write_pairs
from helios.training.phase import (
    AdaptStage,
    DmdStage,
    EncodedText,
    NoProbes,
    OdeStage,
    Phase,
    PreparedData,
    PretrainStage,
    PromptPairs,
    PyramidStage,
    ToyLatents,
    VaeStage,
)
from helios.training.plans import geometry_for, probe_plan, student_plan
from helios.training.player import Player
from helios.training.probes.noise_bands import NoiseBands
from helios.training.probes.rollouts import Rollouts
from helios.training.residence import OneAtATime, Residence, Resident
from helios.training.scores import Scores, SeparateScores, SharedScores
from helios.training.text import Captions, EncodedCaptions, StoredCaptions
from helios.training.toyworld import ToyPrompts
from helios.training.trainer import Probe
from helios.training.workspace import Workspace

# How much of a recording is asked for, where it lies and how it is split over calls: not what a pair looks like.
_NOT_OF_A_PAIR = ("folder", "prompts", "count", "batch")

logger = logging.getLogger(__name__)


@dataclass(kw_only=True)
class Built:
    """A phase, ready to run.

    Attributes:
        method: of the training.
        dataset: what it reads.
        probes: what is looked at.
        info: the starting checkpoint.
        student: the transformer that is exported, or None where the VAE is.
        vae: in training, or None.
        text_encoder: in training, or None.
    """

    method: Method
    dataset: Dataset
    info: CheckpointInfo
    probes: tuple[Probe, ...] = ()
    student: nn.Module | None = None
    vae: HeliosVAE | None = None
    text_encoder: nn.Module | None = None


@dataclass
class _Builder:
    phase: Phase
    workspace: Workspace
    device: torch.device
    info: CheckpointInfo = field(init=False)

    def __post_init__(self) -> None:
        if isinstance(self.phase.training, LoraTraining):
            load_extra("peft", extra="train")  # before anything heavy loads
        self.info = inspect(self.workspace.start(self.phase.start))
        _check_start(self.phase, self.info)
        self.variant: Variant = self.phase.stage.variant
        self.geometry = geometry_for(self.info, self.variant)

    def build(self) -> Built:
        makers = {
            VaeStage: self._vae,
            PretrainStage: self._pretrain,
            AdaptStage: self._adapt,
            PyramidStage: self._pyramid,
            OdeStage: self._ode,
            DmdStage: self._dmd,
        }
        return makers[type(self.phase.stage)]()

    def prepare(self) -> tuple[Path, ...]:
        """Make what is made once; see :func:`prepare`."""
        stage, data = self.phase.stage, self.phase.data
        made = [self.info.path]
        if isinstance(stage, DmdStage):
            made.append(self.workspace.start(stage.teacher))
        if isinstance(data, ToyLatents):
            made.append(self._make_latents(data))
        if isinstance(data, PromptPairs):
            self._ode()
            made.append(self.workspace.data(data.folder))
        return tuple(made)

    def _vae(self) -> Built:
        stage, phase = self.phase.stage, self.phase
        vae = load_vae(self.info, self.device)
        own_parameters(vae.module)
        vae.module.train()
        trainables = phase.training.attach(vae.module)
        player = Player(name="vae", module=vae.module, trainables=trainables, optim=phase.optim, ema=phase.ema)
        method = VaeTraining(player, vae, stage.loss, stage.view, stage.halved, phase.precision)
        return Built(method=method, dataset=phase.data, info=self.info, vae=vae)

    def _pretrain(self) -> Built:
        model = self._transformer(self.info)
        encoder = self._text_encoder()
        captions = self._captions(encoder)
        if self.phase.text.trained:
            both = nn.ModuleDict({"transformer": model, "text_encoder": encoder})
            frozen = tuple(f"transformer.{name}" for name in self.phase.training.frozen)
            trainables = FullTraining(frozen=frozen).attach(both)
            player = self._player(both, trainables)
        else:
            encoder = None
            player = self._player(model, self.phase.training.attach(model))
        network = Network(module=model, precision=self.phase.precision)
        stage = self.phase.stage
        method = FlowMatching(player, network, captions, self.geometry, stage.excerpts, stage.past)
        return self._built(method, model, network, captions, text_encoder=encoder, with_history=False)

    def _adapt(self) -> Built:
        player, network, captions = self._student()
        stage = self.phase.stage
        method = Stage1(player, network, captions, self.geometry, stage.tasks, stage.law, stage.sparse)
        return self._built(method, network.module, network, captions)

    def _pyramid(self) -> Built:
        player, network, captions = self._student()
        stage = self.phase.stage
        method = Stage2(player, network, captions, self.geometry, stage.tasks, draws=stage.draws)
        return self._built(method, network.module, network, captions)

    def _ode(self) -> Built:
        model, captions = self._transformer(self.info), self._captions()
        network = Network(module=model, precision=self.phase.precision)
        plan = student_plan(self.info, self.phase.stage.student)
        data = self._pairs(network, captions, plan)  # recorded before anything is trained: the teacher is the start
        player = self._player(model, self.phase.training.attach(model))
        method = OdeRegression(player, network, captions, plan, self.phase.stage.loss)
        return self._built(method, model, network, captions, dataset=data)

    def _dmd(self) -> Built:
        stage, phase = self.phase.stage, self.phase
        model, captions = self._transformer(self.info), self._captions()
        captions.check([stage.config.negative])
        player = self._player(model, phase.training.attach(model), name=STUDENT)
        network = Network(module=model, precision=phase.precision, works_on=self.device)
        teacher = inspect(self.workspace.start(stage.teacher))
        if teacher.variant is not Variant.BASE:
            raise InputError(f"{teacher.path} is {teacher.variant}: the teacher of distillation is a Base model")
        base = self._transformer(teacher)
        scores, critic_module, trainables = self._scores(base, stage.critic)
        plan = student_plan(self.info, stage.student)
        adversary, first_steps = self._adversary(scores.fake, plan), {}
        if isinstance(adversary, Adversary):
            heads = {f"heads.{name}": p for name, p in adversary.discriminator.named_parameters()}
            trainables = {f"score.{name}": p for name, p in trainables.items()} | heads
            critic_module = nn.ModuleDict({"score": critic_module, "heads": adversary.discriminator})
            first_steps = dict.fromkeys(heads, adversary.config.start)
        critic = Player(
            name=CRITIC,
            module=critic_module,
            trainables=trainables,
            optim=stage.critic_optim,
            first_steps=first_steps,
        )
        turns = OneAtATime([model, scores.fake.module], self.device) if stage.one_at_a_time else Resident()
        method = Dmd(player, critic, network, scores, captions, plan, stage.config, adversary, turns)
        built = self._built(method, model, network, captions)
        _check_sizes(built.dataset, plan)
        built.probes = tuple(AtHand(probe, turns, model) for probe in built.probes)
        return built

    def _student(self) -> tuple[Player, Network, Captions]:
        """Of a stage that trains the starting checkpoint's transformer and needs no other network."""
        model, captions = self._transformer(self.info), self._captions()
        player = self._player(model, self.phase.training.attach(model))
        return player, Network(module=model, precision=self.phase.precision), captions

    def _scores(self, base: nn.Module, training: Training) -> tuple[Scores, nn.Module, dict[str, nn.Parameter]]:
        wrap = partial(Network, precision=self.phase.precision, works_on=self.device)
        if not isinstance(training, FullTraining):
            trainables = training.attach(base)
            return SharedScores(fake=wrap(module=base)), base, trainables
        if self.phase.stage.one_at_a_time:
            raise InputError("one_at_a_time swaps two networks: share the base, with critic=LoraTraining")
        fake = copy.deepcopy(base)
        trainables = training.attach(fake)
        base.requires_grad_(False).eval()
        return SeparateScores(real=wrap(module=base), fake=wrap(module=fake)), fake, trainables

    def _adversary(self, network: Network, plan: SamplingPlan) -> Adversary | NoAdversary:
        heads = self.phase.stage.adversary
        if isinstance(heads, NoAdversary):
            return heads
        if min(plan.geometry.latent_size(plan.height, plan.width)) < SMALLEST:
            least = SMALLEST * plan.geometry.spatial
            raise InputError(
                f"the discriminator reads halves of {plan.height}x{plan.width} pixels, which is too small for its "
                f"convolutions: use {least} or more each way, or set stage.adversary=NoAdversary"
            )
        config = network.module.config
        if max(heads.taps) >= config.num_layers:
            raise InputError(f"taps={heads.taps} read blocks that a model of {config.num_layers} does not have")
        torch.manual_seed(self.phase.run.seed)
        discriminator = Discriminator(
            channels=config.in_channels,
            hidden=config.num_attention_heads * config.attention_head_dim,
            taps=heads.taps,
            width=heads.width,
        ).to(self.device)
        return Adversary(discriminator=discriminator, network=network, config=heads.weights)

    def _transformer(self, info: CheckpointInfo) -> nn.Module:
        torch.manual_seed(self.phase.run.seed)  # of adapters; ranks are made equal again when they are placed
        model = load_transformer(info, self.device, getattr(torch, self.phase.dense))
        own_parameters(model)
        if self.phase.recompute:
            model.enable_gradient_checkpointing()
        return model.train()

    def _player(self, module: nn.Module, trainables: dict[str, nn.Parameter], name: str = STUDENT) -> Player:
        return Player(name=name, module=module, trainables=trainables, optim=self.phase.optim, ema=self.phase.ema)

    def _text_encoder(self) -> nn.Module:
        encoder = load_text_encoder(self.info, self.device, torch.float32)
        own_parameters(encoder)
        return encoder

    def _captions(self, encoder: nn.Module | None = None) -> Captions:
        text = self.phase.text
        if not isinstance(text, EncodedText):
            return StoredCaptions(load_prompt_encoder(self.info, self.device, torch.float32))
        tokenizer = load_tokenizer(self.info.path / "tokenizer")
        return EncodedCaptions(
            tokenizer=tokenizer,
            encoder=encoder or self._text_encoder(),
            tokens=prompt_tokens(tokenizer.model_max_length),
            precision=self.phase.precision,
            dropout=text.dropout,
        )

    def _clips(self, captions: Captions) -> Dataset:
        data, stored = self.phase.data, not isinstance(self.phase.text, EncodedText)
        if isinstance(data, PreparedData):
            info = replace(self.info, geometry=self.geometry)  # sizes have to divide into the levels of this stage
            clips = PreparedClips(self.workspace.data(data.folder), info, chunks=data.chunks, text=stored)
        else:
            clips = EncodedClips(self._make_latents(data))
        if not stored:  # stored states were checked when they were made
            captions.check(clips.captions())
        return clips

    def _make_latents(self, data: ToyLatents) -> Path:
        folder = self.workspace.data(data.folder)

        def make() -> None:
            vae = load_vae(self.info, self.device)
            show = _say("clips encoded")
            encode_source(data.world, vae, self.info.geometry, data.encode, folder, show=show)

        settings = {"world": to_plain(data.world), "encode": to_plain(data.encode)}
        made_by = {**settings, "vae": latents_identity(self.info)}
        self.workspace.once(folder, made_by, finished=all_encoded(folder, data.encode), make=make)
        return folder

    def _pairs(self, network: Network, captions: Captions, plan: SamplingPlan) -> OdePairs:
        data: PromptPairs = self.phase.data
        folder, prompts = self.workspace.data(data.folder), prompts_of(data, self.workspace)
        captions.check([*prompts, data.negative])

        def make() -> None:
            settings = PairSettings(
                steps=data.steps,
                chunks=data.chunks,
                guidance=data.guidance,
                negative=data.negative,
                seed=data.seed,
                dtype=getattr(torch, data.dtype),
            )
            record = partial(record_pairs, network, plan, captions, settings=settings, device=self.device)
            stored = not isinstance(self.phase.text, EncodedText)
            show = _say("trajectories recorded")
            network.module.eval()
            with captions.at_hand():
                write_pairs(folder, prompts, record, batch=data.batch, seed=data.seed, store_text=stored, show=show)
            network.module.train()

        made_by = {
            "data": {key: value for key, value in to_plain(data).items() if key not in _NOT_OF_A_PAIR},
            "student": to_plain(self.phase.stage.student),
            "teacher": transformer_identity(self.info),
            "text_encoder": identities(self.info).text_encoder,
        }
        self.workspace.once(folder, made_by, finished=all_recorded(folder, prompts), make=make)
        return OdePairs(folder)

    def _built(
        self,
        method: Method,
        model: nn.Module,
        network: Network,
        captions: Captions,
        *,
        dataset: Dataset | None = None,
        text_encoder: nn.Module | None = None,
        with_history: bool = True,
    ) -> Built:
        dataset = dataset or self._clips(captions)
        probes, held_out = self._probes(network, captions, dataset, with_history)
        return Built(
            method=method,
            dataset=WithoutEnd(dataset, held_out) if held_out else dataset,
            info=self.info,
            probes=probes,
            student=model,
            text_encoder=text_encoder,
        )

    def _probes(
        self, network: Network, captions: Captions, dataset: Dataset, with_history: bool
    ) -> tuple[tuple[Probe, ...], int]:
        """The probes, and how many clips of the data's end they keep to themselves."""
        settings, stage = self.phase.probes, self.phase.stage
        if isinstance(settings, NoProbes):
            return (), 0
        student = getattr(stage, "student", None)
        plan = probe_plan(self.info, self.variant, steps=settings.steps, guidance=settings.guidance, student=student)
        toy = ToyPrompts(count=settings.count)
        prompts = settings.prompts or toy.prompts()
        captions.check([*prompts, settings.negative])
        rolled = Rollouts(
            network=network,
            captions=captions,
            plan=plan,
            vae=load_vae(self.info, self.device),
            prompts=prompts,
            chunks=settings.chunks if with_history else 1,
            negative=settings.negative,
            judge=None if settings.prompts else toy.judge,
        )
        probes: list[Probe] = [rolled]
        if settings.long_chunks and with_history:
            few = rolled.prompts[: settings.long_count]
            probes.append(replace(rolled, prompts=few, chunks=settings.long_chunks, name="long", judge=None))
        held_out = settings.clips if not isinstance(stage, OdeStage) else 0
        if held_out:
            trained = trained_clips(dataset, held_out)
            if trained == 0:
                found = f"there are {len(dataset)}, or all that are left are of the same video"
                raise InputError(
                    f"probes keep {held_out} clips and {found}: lower probes.clips, or prepare more videos"
                )
            clips = [dataset[len(dataset) - held_out + place] for place in range(held_out)]
            stages = SingleStage() if self.variant is Variant.BASE else PyramidStages()
            probes.insert(
                0,
                NoiseBands(
                    network=network,
                    captions=captions,
                    geometry=self.geometry,
                    clips=clips,
                    stages=stages,
                    with_history=with_history,
                ),
            )
            held_out = len(dataset) - trained
        return tuple(probes), held_out


def trained_clips(dataset: Dataset, held_out: int) -> int:
    """How many clips, from the first on, are trained when the last ``held_out`` are kept for probes: other clips of a
    video that is held out are not trained either. 0 when nothing is left.
    """
    trained = max(0, len(dataset) - held_out)
    if isinstance(dataset, PreparedClips):
        videos = dataset.videos()
        kept = set(videos[trained:])
        while trained and videos[trained - 1] in kept:
            trained -= 1
    return trained


@dataclass(frozen=True)
class AtHand:
    """A probe of a network that may be away from its device: it is brought back first."""

    inner: Probe
    residence: Residence
    module: nn.Module

    def __call__(self, step: int, folder: Path | None) -> Mapping[str, float]:
        """See :class:`helios.training.trainer.Probe`."""
        self.residence.bring(self.module)
        return self.inner(step, folder)


@dataclass(frozen=True)
class WithoutEnd:
    """A data set without its last ``held_out`` items."""

    inner: Dataset
    held_out: int

    def __len__(self) -> int:
        return len(self.inner) - self.held_out

    def __getitem__(self, index: int) -> object:
        return self.inner[index]

    def buckets(self) -> Sequence[object]:
        """Of the items that are left."""
        return self.inner.buckets()[: len(self)]


def build(phase: Phase, workspace: Workspace, device: torch.device) -> Built:
    """Everything that a phase needs; what is made once and missing is made first, if the workspace allows it.

    Raises: InputError for a missing start, data of another checkpoint, and settings that do not fit it.
    """
    return _Builder(phase, workspace, device).build()


def prepare(phase: Phase, workspace: Workspace, device: torch.device) -> tuple[Path, ...]:
    """Make what a phase needs and several ranks cannot make together: its start, encoded clips, recorded pairs.

    Returns: where all of that is.
    Raises: as :func:`build`.
    """
    return _Builder(phase, workspace, device).prepare()


def prompts_of(data: PromptPairs, workspace: Workspace) -> list[str]:
    """The prompts that pairs are made of.

    Raises: InputError when the file is not there or has fewer.
    """
    if data.prompts is None:
        from helios.data.toy import sentences

        return [str(text) for text in sentences(data.count, data.seed + 7)]
    file = workspace.data(data.prompts)
    if not file.is_file():
        raise InputError(f"{file} does not exist: write one prompt per line into it, or name another as data.prompts")
    lines = [line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    if len(lines) < data.count:
        raise InputError(f"{file} has {len(lines)} prompts, {data.count} are wanted: add some or lower data.count")
    return lines[: data.count]


def _check_start(phase: Phase, info: CheckpointInfo) -> None:
    if info.variant not in phase.stage.starts_from:
        wanted = " or ".join(phase.stage.starts_from)
        raise InputError(
            f"{info.path} is a checkpoint of another stage: it is {info.variant}, and {phase.name} "
            f"({type(phase.stage).__name__}) starts from {wanted}; set start to such a one"
        )


def _check_sizes(dataset: Dataset, plan: SamplingPlan) -> None:
    """The student makes chunks of one size, and the scores compare them with what the data's history leads to."""
    first_of = {bucket: index for index, bucket in reversed(list(enumerate(dataset.buckets())))}
    wanted = plan.geometry.latent_size(plan.height, plan.width)
    for index in first_of.values():
        found = tuple(dataset[index].latents_CTHW.shape[-2:])
        if found != wanted:
            spatial = plan.geometry.spatial
            sizes = [f"{rows * spatial}x{columns * spatial}" for rows, columns in (found, wanted)]
            raise InputError(
                f"the data holds clips of {sizes[0]} (height x width) and the student makes {sizes[1]}: prepare the videos "
                f"in that one size"
            )


def own_parameters(module: nn.Module) -> None:
    """Give every weight memory of its own: loaded ones may be views of a mapped file, which optimisers cannot fuse."""
    for parameter in module.parameters():
        parameter.data = parameter.data.clone()


def _say(what: str) -> Callable[[int, int], None]:
    return lambda done, total: logger.info("%d of %d %s", done, total, what)
