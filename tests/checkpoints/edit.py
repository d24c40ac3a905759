"""Small changes to a copied checkpoint."""

import json
import shutil
from pathlib import Path


def copy_of(checkpoint: Path, target: Path) -> Path:
    return Path(shutil.copytree(checkpoint, target / "copy"))


def edit_json(file: Path, **changes) -> None:
    """Set keys of a JSON file; a value of None removes the key."""
    content = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({key: value for key, value in content.items() if value is not None}))
