"""Put the finished models of the toy recipe into the package: shared parts once, weights in half precision.

python -m recipes.ship runs/toy
"""

import sys
from pathlib import Path

from helios.checkpoints import Variant, inspect
from helios.checkpoints.embedded import EMBEDDED, write_embedded
from helios.errors import InputError
from helios.training.workspace import Workspace

_EXPORTS = {
    Variant.BASE: ("stage1_post",),
    Variant.MID: ("stage2_post",),
    Variant.DISTILLED: ("gan", "dmd", "ode"),
}


def ship(workspace: Path, target: Path = EMBEDDED) -> dict[Variant, Path]:
    """Write the embedded models from the newest export of each variant.

    Returns: the checkpoints that were taken.
    Raises: InputError when a variant has not been trained.
    """
    space = Workspace(workspace)
    chosen = {}
    for variant, phases in _EXPORTS.items():
        found = [space.model(phase) for phase in phases if space.model(phase).is_dir()]
        if not found:
            raise InputError(f"{workspace} holds no {variant} model: train toy.{phases[-1]} first")
        chosen[variant] = found[0]
        assert inspect(found[0]).variant is variant
    target.parent.mkdir(parents=True, exist_ok=True)
    write_embedded(target, chosen)
    return chosen


if __name__ == "__main__":
    for variant, folder in ship(Path(sys.argv[1])).items():
        print(variant, folder)
