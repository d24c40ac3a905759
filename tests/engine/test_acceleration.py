"""Accelerations are choices, and keep what comes out."""

import json

import numpy as np
import pytest
import torch

from helios import Helios
from helios.checkpoints.random import write_random_checkpoint
from helios.engine.acceleration import CompiledBlocks, CompiledNorms, FusedProjections
from helios.engine.packages import PackagedBlocks, _manifest, build_packages
from helios.engine.session import EarlyFrames, FloatPixels
from helios.errors import InputError
from helios.ops import channel_norm

SIZE = {"height": 64, "width": 64, "seed": 3, "steps": (1, 1, 1), "amplify_first_chunk": False, "num_frames": 66}
PROMPT = "A red circle moves slowly from left to right."


@pytest.fixture
def helios(tiny):
    """Loaded anew for each test, which changes it."""
    return Helios.from_pretrained(tiny("distilled"), device="cpu", dtype="float32")


def frames_of(helios, **settings) -> np.ndarray:
    return helios.generate(PROMPT, pixels=FloatPixels(), **{**SIZE, **settings}).frames


@pytest.mark.parametrize(
    "accelerations",
    [
        [FusedProjections()],
        [CompiledBlocks(backend="eager")],
        [FusedProjections(), CompiledBlocks(backend="eager")],
    ],
)
def test_accelerated_equals_plain(helios, accelerations):
    plain = frames_of(helios)
    accelerated = frames_of(helios.accelerate(*accelerations))
    assert np.abs(accelerated - plain).max() < 1e-5


@pytest.mark.usefixtures("compiler")
def test_compiled_norms_equal_plain(helios):
    test_accelerated_equals_plain(helios, [CompiledNorms()])


def test_compiled_blocks_take_other_sizes_and_stream(helios):
    helios.accelerate(CompiledBlocks(backend="eager"))
    streamed = np.concatenate([chunk.frames for chunk in helios.stream(PROMPT, **SIZE)])
    assert np.array_equal(streamed, helios.generate(PROMPT, **SIZE).frames)
    assert frames_of(helios, height=128, num_frames=1).shape == (1, 128, 64, 3)


@pytest.mark.usefixtures("compiler")
def test_norms_are_compiled_for_decoding_whole_early_and_nowhere_else(helios, monkeypatch):
    sizes = []
    monkeypatch.setattr(channel_norm, "_WORTH_COMPILING", 1)
    monkeypatch.setattr(channel_norm, "_compiled_rows", lambda: counting(channel_norm._write_rows, sizes))
    plain = frames_of(helios)
    assert not sizes
    helios.accelerate(CompiledNorms())
    assert np.abs(frames_of(helios) - plain).max() < 1e-5
    whole = len(sizes)
    assert whole > 20  # of two chunks
    assert np.abs(frames_of(helios, decoding=EarlyFrames()) - plain).max() < 1e-5
    assert len(sizes) == 10 * whole  # nine latent frames each
    helios.vae.encode(torch.rand(1, 3, 5, 64, 64))
    assert len(sizes) == 10 * whole


@pytest.mark.usefixtures("no_compiler")
def test_compiling_without_a_compiler_is_refused_before_it_begins(helios, tmp_path):
    for acceleration in (CompiledBlocks(), CompiledNorms()):
        with pytest.raises(InputError, match="install g\\+\\+ or name one in CXX"):
            helios.accelerate(acceleration)
    with pytest.raises(InputError, match="needs a C\\+\\+ compiler and there is none"):
        build_packages(helios.transformer, lambda: None, tmp_path / "packages")
    assert not (tmp_path / "packages").exists() and not helios.vae.backends
    helios.accelerate(CompiledBlocks(backend="eager"))


def test_warm_up_runs_every_shape_and_changes_nothing(helios):
    shapes = set()
    helios.transformer.blocks[0].register_forward_pre_hook(lambda _, inputs: shapes.add(inputs[0].shape[1]))
    prepared = helios.prepare(PROMPT, **SIZE)
    helios.warm_up(prepared)
    warmed, calls = set(shapes), len(shapes)
    first = frames_of(helios)
    assert shapes == warmed and calls == 3
    assert np.array_equal(first, frames_of(helios))


def test_shapes_without_a_package_are_said_once(helios, tmp_path, caplog):
    (tmp_path / "packages.json").write_text(json.dumps(_manifest(helios.transformer)))
    plain = frames_of(helios)
    helios.accelerate(PackagedBlocks(folder=tmp_path))
    assert np.array_equal(plain, frames_of(helios)) and np.array_equal(plain, frames_of(helios))
    lines = [record.getMessage() for record in caplog.records]
    assert len(lines) == len(set(lines)) == 3  # one per level
    assert all(f"`helios compile -o {tmp_path}`" in line for line in lines)


@pytest.mark.usefixtures("compiler")
def test_a_build_that_breaks_off_leaves_no_manifest(helios, tmp_path, monkeypatch):
    prepared = helios.prepare(PROMPT, **SIZE)

    def build(compile_one):
        monkeypatch.setattr("helios.engine.packages._compile", compile_one)
        build_packages(helios.transformer, lambda: helios.warm_up(prepared), tmp_path)

    def broken(*given):
        raise RuntimeError("the compiler is gone")

    build(lambda block, inputs, package: package.write_bytes(b""))
    (tmp_path / "mine.pt2").write_bytes(b"")
    (old := tmp_path / "batch7-history1-noisy1-1-1.pt2").write_bytes(b"")
    with pytest.raises(RuntimeError, match="the compiler is gone"):
        build(broken)
    assert old.exists() and not (tmp_path / "packages.json").exists()
    with pytest.raises(InputError, match="helios compile"):
        PackagedBlocks(folder=tmp_path)
    build(lambda block, inputs, package: package.write_bytes(b""))
    assert not old.exists() and len(list(tmp_path.glob("*.pt2"))) == 4  # whose they were is not known


@pytest.fixture(scope="module")
def packages(tmp_path_factory, compiler):
    """One small block compiled for the one level of a Base model: the compiler takes most of a minute."""
    root = tmp_path_factory.mktemp("packages")
    write_random_checkpoint(root / "model", "base", num_layers=2)
    helios = Helios.from_pretrained(root / "model", device="cpu", dtype="float32").accelerate(FusedProjections())
    prepared = helios.prepare(PROMPT, **BASE)
    folder = build_packages(helios.transformer, lambda: helios.warm_up(prepared), root / "packages")
    return root / "model", folder


BASE = {"height": 64, "width": 64, "steps": (2,), "guidance": 1.0, "num_frames": 33}


def test_packages_load_and_equal_the_plain_blocks(packages):
    model, folder = packages
    helios = Helios.from_pretrained(model, device="cpu", dtype="float32")
    plain = frames_of(helios, **BASE, amplify_first_chunk=None)
    helios.accelerate(PackagedBlocks(folder=folder))
    ran = []
    packaged = helios.transformer.blocks[0].forward
    packaged._runners = {name: counting(run, ran) for name, run in packaged._runners.items()}
    assert np.abs(frames_of(helios, **BASE, amplify_first_chunk=None) - plain).max() < 1e-5
    assert len(ran) == 2  # both steps; the last block runs as before
    with torch.no_grad():  # weights are shared, not copied
        helios.transformer.blocks[0].ffn.net[2].weight.mul_(1.5)
    changed = frames_of(helios, **BASE, amplify_first_chunk=None)
    assert np.abs(changed - plain).max() > 1e-3
    helios.transformer.blocks[0].forward = packaged._plain
    assert np.abs(changed - frames_of(helios, **BASE, amplify_first_chunk=None)).max() < 1e-5


def counting(run, ran):
    def call(*inputs):
        ran.append(1)
        return run(*inputs)

    return call


def test_packages_of_something_else_are_refused(packages, helios, tmp_path):
    _, folder = packages
    with pytest.raises(InputError, match="another config"):
        helios.accelerate(PackagedBlocks(folder=folder))
    with pytest.raises(InputError, match="helios compile"):
        helios.accelerate(PackagedBlocks(folder=tmp_path))
    built = json.loads((folder / "packages.json").read_text())
    (tmp_path / "packages.json").write_text(json.dumps({**built, "torch": "1.0"}))
    with pytest.raises(InputError, match="another torch"):
        helios.accelerate(PackagedBlocks(folder=tmp_path))
