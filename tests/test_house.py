"""Rules of the house that a reader may rely on: imports point down, importing is light."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import helios
import helios.bench
import helios.data
import helios.media

ROOT = Path(helios.__file__).parent
FLOORS = [
    "errors",
    "lazy_names",
    "extras",
    "shapes",
    "device",
    "ops",
    "schedulers",
    "noise",
    "models",
    "checkpoints",
    "conditioning",
    "sampling",
    "parallel",
    "media",
    "data",
    "engine",
    "training",
    "bench",
    "serve",
    "cli",
]
# Checkpoint presets name a kind of guidance, which lives one floor up and depends on nothing below it.
ALLOWED = {("checkpoints", "conditioning")}


def room(path: Path) -> str:
    parts = path.relative_to(ROOT).parts
    return parts[0] if len(parts) > 1 else path.stem


def imported_rooms(path: Path):
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("helios."):
            yield node.module.split(".")[1]
        elif isinstance(node, ast.ImportFrom) and node.module == "helios":
            yield from (alias.name for alias in node.names if alias.name in FLOORS)
        elif isinstance(node, ast.Import):
            yield from (alias.name.split(".")[1] for alias in node.names if alias.name.startswith("helios."))


def test_imports_point_down():
    upward = {
        (str(path.relative_to(ROOT)), target)
        for path in ROOT.rglob("*.py")
        if path.name != "__init__.py" or path.parent != ROOT
        for target in imported_rooms(path)
        if room(path) != target
        and (room(path), target) not in ALLOWED
        and FLOORS.index(target) > FLOORS.index(room(path))
    }
    assert upward == set()


def test_engine_and_training_do_not_know_each_other():
    for a, b in (("engine", "training"), ("training", "engine"), ("bench", "training")):
        files = [path for path in (ROOT / a).rglob("*.py") if b in set(imported_rooms(path))]
        assert files == []


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_importing_helios_loads_nothing_heavy():
    heavy = "{'torch', 'diffusers', 'transformers', 'av', 'cv2', 'numpy'}"
    assert run(f"import sys, helios; print({heavy} & set(sys.modules))").strip() == "set()"


@pytest.mark.parametrize("package", [helios, helios.bench, helios.data, helios.media], ids=lambda p: p.__name__)
def test_public_names_load_when_they_are_used(package):
    assert dir(package) == sorted(package.__all__)
    assert all(getattr(package, name) is not None for name in package.__all__)
    with pytest.raises(AttributeError, match=f"module {package.__name__!r} has no attribute 'nonsense'"):
        _ = package.nonsense


def test_help_loads_nothing_heavy():
    code = "import sys\nfrom helios.cli.main import run\nrun(['generate', '--help'])\nprint('torch' in sys.modules)"
    assert run(code).strip().splitlines()[-1] == "False"


def test_nothing_probes_a_device_when_the_engine_is_imported():
    code = "import torch\ntorch.accelerator.current_accelerator = None\nimport helios.engine.pipeline\nprint('ok')"
    assert run(code).strip() == "ok"
