"""Weight files from Hugging Face that survive an interruption at any byte, in any process.

The hub's client goes on after a dropped connection, but a process that is stopped begins its files anew, and a shard
of the released models has ten gigabytes. Here the large files are fetched with byte ranges into the client's own cache,
under the name the client gives them, and checked against their SHA-256; the client then finds them complete.
"""

import errno
import hashlib
import logging
import threading
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

logger = logging.getLogger(__name__)

_BLOCK_BYTES = 1 << 20
_WORKERS = 4
_TRIES = 5
_WAIT_S = 1.0


@dataclass(frozen=True, kw_only=True)
class RemoteFile:
    """A large file on the hub.

    Args:
        name: path inside the repository.
        url: where it is.
        sha256: of its content, which is also its name in the cache.
        size: in bytes.
    """

    name: str
    url: str
    sha256: str
    size: int


class DamagedFileError(Exception):
    """A file arrived whole and its content is not what the hub announced."""


class _Stopped(Exception):
    """Another file failed, or the user interrupted."""


def prefetch(
    repo: str, revision: str | None, *, endpoint: str | None, allow: Sequence[str], ignore: Sequence[str]
) -> None:
    """Bring the large files of a snapshot into the cache of the hub's client, going on where an earlier try stopped.

    A repository that cannot be listed is left to the client, which says what is wrong or falls back to its cache.

    Args:
        repo: id on the hub.
        revision: branch, tag or commit; the default branch if None.
        endpoint: address of the hub; the client's own if None.
        allow, ignore: patterns of file names.
    Raises: DamagedFileError; and whatever the network or the disk raised, after a few tries.
    """
    from huggingface_hub import constants
    from huggingface_hub.file_download import repo_folder_name

    blobs = Path(constants.HF_HUB_CACHE) / repo_folder_name(repo_id=repo, repo_type="model") / "blobs"
    try:
        files = _large_files(repo, revision, endpoint, allow, ignore)
    except Exception as error:  # noqa: BLE001 - the client asks the same right after this and sorts the errors
        logger.debug("%s cannot be listed: %s", repo, error)
        return
    wanted = [file for file in files if not (blobs / file.sha256).exists()]
    if not wanted:
        return
    blobs.mkdir(parents=True, exist_ok=True)
    stop = threading.Event()
    with ThreadPoolExecutor(_WORKERS) as pool, _bar(wanted) as bar:
        jobs = [pool.submit(_fetch, file, blobs, stop, bar) for file in wanted]
        try:
            for job in jobs:
                job.result()
        finally:
            stop.set()  # after an error or an interrupt, the others stop at their next block


def _large_files(
    repo: str, revision: str | None, endpoint: str | None, allow: Sequence[str], ignore: Sequence[str]
) -> list[RemoteFile]:
    from huggingface_hub import HfApi, constants, hf_hub_url
    from huggingface_hub.hf_api import RepoFile
    from huggingface_hub.utils import filter_repo_objects

    api = HfApi(endpoint=endpoint)
    commit = api.repo_info(repo, revision=revision or constants.DEFAULT_REVISION).sha
    tree = api.list_repo_tree(repo, recursive=True, revision=commit)
    large = {entry.path: entry.lfs for entry in tree if isinstance(entry, RepoFile) and entry.lfs}
    return [
        RemoteFile(
            name=name,
            url=hf_hub_url(repo, name, revision=commit, endpoint=endpoint),
            sha256=large[name].sha256,
            size=large[name].size,
        )
        for name in filter_repo_objects(large, allow_patterns=list(allow), ignore_patterns=list(ignore))
    ]


def _bar(files: Sequence[RemoteFile]):
    from huggingface_hub.utils import tqdm

    return tqdm(total=sum(file.size for file in files), unit="B", unit_scale=True, desc=f"{len(files)} weight files")


def _fetch(file: RemoteFile, blobs: Path, stop: threading.Event, bar) -> None:
    from huggingface_hub.utils import WeakFileLock

    part = blobs / f"{file.sha256}.part"
    with WeakFileLock(part.with_suffix(".lock")):
        if (blobs / file.sha256).exists():  # another process was faster
            return
        if part.exists() and part.stat().st_size > file.size:
            part.unlink()
        bar.update(part.stat().st_size if part.exists() else 0)
        _fill(file, part, stop, bar)
        _verify(file, part)
        part.replace(blobs / file.sha256)


def _fill(file: RemoteFile, part: Path, stop: threading.Event, bar) -> None:
    """Append to the part until it is whole; tries that bring bytes do not count."""
    failures = 0
    while (have := part.stat().st_size if part.exists() else 0) < file.size or not part.exists():
        try:
            _append(file, part, have, stop, bar)
        except _Stopped:
            raise
        except Exception as error:
            failures = failures + 1 if not part.exists() or part.stat().st_size == have else 0
            if failures >= _TRIES or getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT, errno.EACCES):
                raise
            logger.info("%s broke off at byte %d (%s), going on", file.name, have, error)
            time.sleep(_WAIT_S * (failures + 1))


def _append(file: RemoteFile, part: Path, start: int, stop: threading.Event, bar) -> None:
    from huggingface_hub.utils import build_hf_headers, get_session, hf_raise_for_status

    headers = build_hf_headers() | {"Accept-Encoding": "identity"} | ({"Range": f"bytes={start}-"} if start else {})
    with get_session().stream("GET", file.url, headers=headers, follow_redirects=True, timeout=30.0) as response:
        hf_raise_for_status(response)
        continued = start > 0 and response.status_code == 206
        if start and not continued:
            bar.update(-start)
        with part.open("ab" if continued else "wb") as out:
            for block in response.iter_bytes(_BLOCK_BYTES):
                if stop.is_set():
                    raise _Stopped
                out.write(block)
                bar.update(len(block))


def _verify(file: RemoteFile, part: Path) -> None:
    with part.open("rb") as stream:
        digest = hashlib.file_digest(stream, "sha256").hexdigest()
    if digest != file.sha256:
        part.unlink()
        raise DamagedFileError(f"{file.name} arrived damaged")
