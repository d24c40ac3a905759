"""From a name to a directory: local paths, Hugging Face, ModelScope, and the small model that comes with the package.

Downloads take only what inference reads (the released repositories also hold the weights of earlier training stages),
go on where an interrupted one stopped, and land in the cache of the hub's own client.
"""

import os
import re
from collections.abc import Callable
from pathlib import Path

from helios.checkpoints.embedded import DEFAULT, SMALL, embedded_checkpoint
from helios.checkpoints.layout import COMPONENTS, MODEL_INDEX
from helios.checkpoints.presets import PRESET_FILE
from helios.checkpoints.transfer import prefetch
from helios.errors import HeliosError, InputError
from helios.extras import load_extra

HUGGING_FACE, MODELSCOPE = "hf", "modelscope"
# The owner is spelled differently on the two hubs.
RELEASED = {
    "helios-base": {HUGGING_FACE: "BestWishYsh/Helios-Base", MODELSCOPE: "BestWishYSH/Helios-Base"},
    "helios-mid": {HUGGING_FACE: "BestWishYsh/Helios-Mid", MODELSCOPE: "BestWishYSH/Helios-Mid"},
    "helios-distilled": {HUGGING_FACE: "BestWishYsh/Helios-Distilled", MODELSCOPE: "BestWishYSH/Helios-Distilled"},
}
_PATTERNS = [MODEL_INDEX, PRESET_FILE, *(f"{component}/*" for component in COMPONENTS)]
_NOT_READ = ["*.bin", "*.pt", "*.pth", "*.msgpack", "*.h5", "*.onnx"]
_MODEL_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+")
_YES = {"1", "ON", "YES", "TRUE"}


class DownloadError(HeliosError):
    """A hub could not be reached or a transfer broke off; the same call again goes on from there."""


def resolve(
    source: str | Path | None = None,
    *,
    revision: str | None = None,
    hub: str | None = None,
    offline: bool | None = None,
) -> Path:
    """The directory of a checkpoint, downloaded first if need be.

    Args:
        source: a directory; ``ORG/NAME`` on a hub, optionally with the prefix ``hf:`` or ``modelscope:``; a short name
            of a released model (``helios-base``, ``helios-mid``, ``helios-distilled``) or of a small one that comes
            with the package (``small-base``, ``small-mid``, ``small-distilled``); None for ``small-distilled``.
        revision: branch, tag or commit on the hub; its default branch if None. A commit pins the bytes.
        hub: ``hf`` or ``modelscope`` for names without a prefix; the environment's HELIOS_HUB, else ``hf``, if None.
        offline: only what is on this machine; the environment's HF_HUB_OFFLINE decides if None.
    Returns: the directory. It is not checked here; see :func:`helios.checkpoints.inspect`.
    Raises:
        InputError: there is no such directory, model or revision; or, offline, it is not on this machine.
        DownloadError: the hub cannot be reached, or the transfer broke off.
    """
    if source is None:
        source = DEFAULT
    if isinstance(source, str) and source in SMALL:
        return _local(embedded_checkpoint(source), revision)
    if isinstance(source, Path) or Path(source).expanduser().is_dir():
        return _local(Path(source).expanduser(), revision)
    hub, name = _hub_and_name(source, hub)
    name = RELEASED.get(name.lower(), {}).get(hub, name)
    if not _MODEL_ID.fullmatch(name):
        raise InputError(
            f"{source!r} is neither a directory nor a model id: pass a checkpoint directory, ORG/NAME, "
            f"modelscope:ORG/NAME or one of {', '.join([*RELEASED, *SMALL])}"
        )
    return _HUBS[hub](name, revision, _offline() if offline is None else offline)


def _local(path: Path, revision: str | None) -> Path:
    if not path.is_dir():
        raise InputError(f"{str(path)!r} is not a directory: pass a checkpoint directory or a hub id such as ORG/NAME")
    if revision is not None:
        raise InputError(f"revision={revision!r} has no meaning for the directory {str(path)!r}: leave it out")
    return path


def _hub_and_name(source: str, hub: str | None) -> tuple[str, str]:
    prefix, colon, rest = source.partition(":")
    if colon and prefix in _HUBS:
        return prefix, rest
    hub = hub or os.environ.get("HELIOS_HUB") or HUGGING_FACE
    if hub not in _HUBS:
        raise InputError(f"hub={hub!r} is unknown: use {' or '.join(_HUBS)}")
    return hub, source


def _offline() -> bool:
    return os.environ.get("HF_HUB_OFFLINE", "").upper() in _YES


def _from_hugging_face(name: str, revision: str | None, offline: bool) -> Path:
    from huggingface_hub import errors as kinds
    from huggingface_hub import snapshot_download

    endpoint = os.environ.get("HF_ENDPOINT")
    try:
        if not (offline or _offline()):
            prefetch(name, revision, endpoint=endpoint, allow=_PATTERNS, ignore=_NOT_READ)
        folder = snapshot_download(
            name,
            revision=revision,
            endpoint=endpoint,
            allow_patterns=_PATTERNS,
            ignore_patterns=_NOT_READ,
            local_files_only=offline,
        )
        return Path(folder)
    except kinds.GatedRepoError as error:
        raise InputError(
            f"{name!r} is gated: accept its terms on its page, then log in with `hf auth login`"
        ) from error
    except kinds.RepositoryNotFoundError as error:
        raise _unknown(name, "Hugging Face", "`hf auth login`") from error
    except kinds.RevisionNotFoundError as error:
        raise InputError(
            f"{name!r} has no revision {revision!r} on Hugging Face: name a branch, tag or commit"
        ) from error
    except kinds.HFValidationError as error:
        raise InputError(f"{name!r} is not a valid Hugging Face id: pass ORG/NAME") from error
    except kinds.LocalEntryNotFoundError as error:
        if offline or _offline():
            raise _not_here(name, revision) from error
        raise _broken_off(name, "Hugging Face", error.__cause__ or error) from error
    except Exception as error:  # the client passes on whatever network, disk or protocol raised
        raise _broken_off(name, "Hugging Face", error) from error


def _from_modelscope(name: str, revision: str | None, offline: bool) -> Path:
    client = load_extra("modelscope_hub", extra="modelscope")
    fetch = {"allow_patterns": _PATTERNS, "ignore_patterns": _NOT_READ, "local_files_only": offline}
    try:
        return Path(client.HubApi(client.HubConfig()).download_repo(name, "model", revision=revision, **fetch))
    except client.CacheNotFound as error:
        raise _not_here(name, revision, f"{MODELSCOPE}:") from error
    except (client.NotExistError, client.AuthenticationError, client.PermissionDeniedError) as error:
        if revision is None:
            raise _unknown(name, "ModelScope", "`modelscope login`") from error
        raise InputError(
            f"there is no model {name!r} with revision {revision!r} on ModelScope: check both, or log in with "
            "`modelscope login` if it is private"
        ) from error
    except client.InvalidParameter as error:
        raise InputError(f"{name!r} is not a valid ModelScope id: pass ORG/NAME") from error
    except client.FileDownloadError as error:
        first = next(iter(error.failed_files), "a file")
        raise _broken_off(name, "ModelScope", f"{len(error.failed_files)} files, first {first}") from error
    except Exception as error:  # the client passes on whatever network, disk or protocol raised
        raise _broken_off(name, "ModelScope", error) from error


_HUBS: dict[str, Callable[[str, str | None, bool], Path]] = {
    HUGGING_FACE: _from_hugging_face,
    MODELSCOPE: _from_modelscope,
}


def _unknown(name: str, hub: str, login: str) -> InputError:
    return InputError(f"there is no model {name!r} on {hub}: check the name, or log in with {login} if it is private")


def _not_here(name: str, revision: str | None, prefix: str = "") -> InputError:
    wanted = name if revision is None else f"{name}@{revision}"
    return InputError(
        f"{wanted!r} is not complete on this machine and downloads are off: run `helios download {prefix}{name}` with a "
        "network"
    )


def _broken_off(name: str, hub: str, cause: BaseException | str) -> DownloadError:
    reason = (str(cause).strip() or type(cause).__name__).splitlines()[0]
    return DownloadError(f"the download of {name!r} from {hub} broke off ({reason}): run it again to go on from there")
