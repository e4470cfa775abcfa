"""Fetch one commit of a Hugging Face repository into a folder, and prove that it is whole.

    python3 download.py REPO COMMIT FOLDER

Stands alone: Python 3.10, its standard library and huggingface_hub (0.34 to 2, as vLLM 0.11 to 0.33 bring it); the Job
`model-download` runs this very text. It knows nothing of baton. What it does, in order:

1. A done marker in FOLDER that names REPO, COMMIT and all files, which have the sizes it says: exit 0, no network.
2. One download a folder: a lock, for which a second one waits, and then finds step 1 true.
3. Ask the hub for the commit's files, sizes and hashes; refuse if the disk has no room for what is missing.
4. In parallel, file by file: here and right, or fetched and then right, or fetched once more and then right.
   Right is: the size, and SHA-256 of a large file or git's SHA-1 of a small one. Passes repeat while they get on.
5. The marker, written in one step. Engines wait for it, so it goes first whenever the folder is about to change.

Files are whole or not there: an attempt that is killed goes on, in its next pod, with the files that are missing.
A second download on storage whose locks do nothing costs bandwidth only: files are moved into place in one step and
then hashed, and no marker is written by a download that another one has taken the folder from.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import re
import shutil
import signal
import sys
import threading
import time
import uuid
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

MARKER = ".baton-download.json"
COMMIT = r"[0-9a-f]{40}"
SECRET_ENV = "BATON_HF_SECRET"  # noqa: S105 - the name of a variable that names a Secret
_REPLACED = f"{MARKER}.replaced"
_LOCK = ".baton-download.lock"
_WORKERS = 8
_READ_BYTES = 8 << 20
_SAY_EVERY_S = 60
_HUB = {
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "HF_HUB_DOWNLOAD_TIMEOUT": "60",
    "HF_HUB_ETAG_TIMEOUT": "60",
}
_LEFT_BEHIND = re.compile(r"\.[0-9a-f]{8}\.incomplete$")
"""partial files of killed attempts, which newer huggingface_hub names at random and never goes on with (its #4306)"""


class File(NamedTuple):
    """A file of the commit, as the hub describes it."""

    name: str
    size: int
    algorithm: str
    digest: str


class Failed(Exception):
    """The download cannot go on; the message says why and what to do."""


class Refused(Failed):
    """The hub does not let this token at the files; another try would end the same."""


class Progress:
    """What is done, said once a file and once a minute."""

    def __init__(self, files: Sequence[File]) -> None:
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._files, self._bytes = 0, 0
        self._all_files, self._all_bytes = len(files), sum(file.size for file in files)
        self._thread = threading.Thread(target=self._repeat, daemon=True)

    def __enter__(self) -> Progress:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()

    def done(self, file: File, how: str) -> None:
        """Count a file."""
        with self._lock:
            self._files += 1
            self._bytes += file.size
            say(f"{file.name}: {how}, {_size(file.size)}, {file.algorithm} right; {self._sum()}")

    def _repeat(self) -> None:
        while not self._ended.wait(_SAY_EVERY_S):
            with self._lock:
                say(self._sum())

    def _sum(self) -> str:
        return f"{self._files} of {self._all_files} files, {_size(self._bytes)} of {_size(self._all_bytes)}"


def main(arguments: Sequence[str]) -> int:
    """Run the program; returns its exit code: 0 done, 1 failed, 2 misused."""
    if len(arguments) != 3:
        say("usage: python3 download.py REPO COMMIT FOLDER")
        return 2
    repo, revision, folder = arguments[0], arguments[1], Path(arguments[2])
    if re.fullmatch(COMMIT, revision) is None:
        say(f"revision {revision!r}: a branch or tag may move; give a commit, 40 digits of 0-9a-f")
        return 2
    try:
        if not _is_done(folder, repo, revision):
            _download(folder, repo, revision)
    except Failed as error:
        say(f"FAILED: {error}")
        return 1
    except PermissionError as error:
        say(f"FAILED: {error.filename or folder}: may not be written: {_owner(folder)}")
        return 1
    except OSError as error:
        say(f"FAILED: {error.filename or folder}: {error.strerror or error}")
        return 1
    return 0


def say(line: str) -> None:
    """Print a line at once."""
    print(line, flush=True)


def _is_done(folder: Path, repo: str, revision: str) -> bool:
    marker = _read_marker(folder / MARKER)
    if (marker.get("repo"), marker.get("revision")) != (repo, revision):
        return False
    wrong = [name for name, size in marker["files"].items() if _size_of(folder / name) != size]
    if wrong:
        say(f"{folder}: {wrong[0]} has changed since the download; checking all files anew")
        return False
    say(f"{folder}: {repo} at {revision} is complete, {len(marker['files'])} files; nothing to do")
    return True


def _download(folder: Path, repo: str, revision: str) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / _LOCK).open("a+", encoding="utf-8") as lock:
        owner = _take(lock, folder)
        if _is_done(folder, repo, revision):
            return
        files = _files_of(repo, revision)
        say(f"{folder}: {repo} at {revision}: {len(files)} files, {_size(sum(file.size for file in files))}")
        _clear(folder, files)
        _check_space(folder, files)
        _fetch_all(folder, repo, revision, files)
        if (folder / _LOCK).read_text(encoding="utf-8") != owner:
            raise Failed(f"{folder}: another download has taken this folder over; this one leaves it alone")
        _write_marker(folder, repo, revision, files)
    say(f"{folder}: {repo} at {revision} is complete, {len(files)} files")


def _take(lock: Any, folder: Path) -> str:
    """Wait for the folder's lock and write a name of our own into it; the lock goes when its holder ends."""
    polls = 0
    while True:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if polls % _SAY_EVERY_S == 0:
                say(f"{folder}: another download is at work; waiting for it")
            polls += 1
            time.sleep(1)
        except OSError as error:
            say(f"{folder}: its storage has no locks ({error.strerror}); going on without")
            break
    owner = uuid.uuid4().hex
    lock.truncate(0)
    lock.write(owner)
    lock.flush()
    return owner


def _files_of(repo: str, revision: str) -> list[File]:
    """The commit's files, largest first.

    Raises   Failed or Refused when the hub does not say
    """
    from huggingface_hub import HfApi  # noqa: PLC0415 - takes a second; not needed when all is done

    try:
        info = HfApi().model_info(repo, revision=revision, files_metadata=True, timeout=60)
    except Exception as error:
        raise _explained(error, repo, revision) from error
    if info.sha != revision:
        raise Failed(f"{repo}: asked for commit {revision}, the hub answered for {info.sha}")
    files = [_file(sibling) for sibling in info.siblings or ()]
    if not files:
        raise Failed(f"{repo} at {revision}: the hub lists no file")
    return sorted(files, key=lambda file: (-file.size, file.name))


def _file(sibling: Any) -> File:
    name, large = sibling.rfilename, sibling.lfs
    if not _is_inside(name):
        raise Failed(f"the hub lists {name!r}, which lies outside the folder")
    size, digest = (large.size, large.sha256) if large is not None else (sibling.size, sibling.blob_id)
    if size is None or not digest:
        raise Failed(f"{name}: the hub gives no size or no hash for it, so it can't be verified")
    return File(name, size, "sha256" if large is not None else "git sha1", digest)


def _clear(folder: Path, files: Sequence[File]) -> None:
    """Take the marker away, and what it says we put here that is of no use now."""
    if (folder / MARKER).exists():
        (folder / MARKER).replace(folder / _REPLACED)
    replaced = _read_marker(folder / _REPLACED)
    for name in sorted(set(replaced.get("files", ())) - {file.name for file in files}):
        if _is_inside(name) and _size_of(folder / name) == replaced["files"][name]:
            (folder / name).unlink()
            say(f"{name}: of {replaced['repo']} at {replaced['revision']}, removed")
    for path in (folder / ".cache" / "huggingface" / "download").rglob("*.incomplete"):
        if _LEFT_BEHIND.search(path.name):
            path.unlink(missing_ok=True)


def _check_space(folder: Path, files: Iterable[File]) -> None:
    needed = sum(max(0, file.size - (_size_of(folder / file.name) or 0)) for file in files)
    disk = shutil.disk_usage(folder)
    if disk.total and needed > disk.free:  # some network file systems say 0 of everything
        raise Failed(
            f"{folder}: {_size(needed)} are missing and the volume has {_size(disk.free)} left of "
            f"{_size(disk.total)}; enlarge its claim or remove what is not needed"
        )


def _fetch_all(folder: Path, repo: str, revision: str, files: Sequence[File]) -> None:
    """Make every file right, in passes: again for those that failed, as long as a pass makes at least one right."""
    left = list(files)
    with Progress(files) as progress:
        while left:
            failed = _pass(folder, repo, revision, left, progress)
            if len(failed) == len(left):
                raise next(iter(failed.values()))
            left = list(failed)
            if left:
                say(f"{len(left)} files failed; once more")


def _pass(folder: Path, repo: str, revision: str, files: Sequence[File], progress: Progress) -> dict[File, Failed]:
    failed: dict[File, Failed] = {}
    with ThreadPoolExecutor(_WORKERS) as pool:
        tasks = {pool.submit(_make_right, folder, repo, revision, file, progress): file for file in files}
        for task in as_completed(tasks):
            try:
                task.result()
            except (Refused, OSError):
                pool.shutdown(wait=False, cancel_futures=True)
                raise
            except Failed as error:
                say(str(error))
                failed[tasks[task]] = error
    return failed


def _make_right(folder: Path, repo: str, revision: str, file: File, progress: Progress) -> None:
    """Make one file right.

    Raises   Failed if it differs after two fetches, or one of them fails; Refused; OSError when the disk does
    """
    path = folder / file.name
    found = _difference(path, file)
    if found is None:
        progress.done(file, "here")
        return
    for _ in range(2):
        if path.exists():
            say(f"{file.name}: {found}; fetching it anew")
            path.unlink()
        started_s = time.monotonic()
        _fetch(folder, repo, revision, file)
        found = _difference(path, file)
        if found is None:
            progress.done(file, f"fetched in {time.monotonic() - started_s:.0f} s")
            return
    path.unlink(missing_ok=True)
    raise Failed(f"{file.name}: {found}, after two fetches; the hub or what lies between changes it")


def _fetch(folder: Path, repo: str, revision: str, file: File) -> None:
    from huggingface_hub import hf_hub_download  # noqa: PLC0415 - as above

    try:
        hf_hub_download(repo, file.name, revision=revision, local_dir=folder)
    except Exception as error:
        if type(error) in {OSError, PermissionError} and getattr(error, "errno", None) is not None:
            raise  # the disk's, not the hub's
        raise _explained(error, repo, revision, file.name) from error


def _difference(path: Path, file: File) -> str | None:
    """Say how a file differs from the hub's; None if it is right."""
    size = _size_of(path)
    if size is None:
        return "not there"
    if size != file.size:
        return f"{size} bytes, not {file.size}"
    digest = _digest(path, file)
    return None if digest == file.digest else f"{file.algorithm} {digest}, not {file.digest}"


def _digest(path: Path, file: File) -> str:
    if file.algorithm == "sha256":
        digest = hashlib.sha256()
    else:
        digest = hashlib.sha1(f"blob {file.size}\0".encode(), usedforsecurity=False)
    with path.open("rb", buffering=0) as opened:
        while block := opened.read(_READ_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _explained(error: Exception, repo: str, revision: str, name: str | None = None) -> Failed:
    """What an error of the hub means for the person who reads the log."""
    from huggingface_hub.errors import GatedRepoError, RevisionNotFoundError  # noqa: PLC0415 - as above

    what = f"{repo} at {revision}" + (f", {name}" if name else "")
    secret = os.environ.get(SECRET_ENV)
    token = "the token in HF_TOKEN" + (f", from Secret {secret}," if secret else "")
    while getattr(error, "response", None) is None and isinstance(error.__cause__, Exception):
        error = error.__cause__
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, GatedRepoError):
        return Refused(
            f"{what}: a gated repository ({status}): ask for access on its page, with the account of {token}"
        )
    if isinstance(error, RevisionNotFoundError):
        return Refused(f"{what}: the repository has no such commit ({status}); correct model.revision in the recipe")
    if status in {401, 403}:
        return Refused(f"{what}: the hub answered {status}: {token} is not valid or may not read this; replace it")
    if status == 404:
        return Refused(f"{what}: the hub answered 404: there is no such repository or file, or {token} may not see it")
    return Failed(f"{what}: {type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}")


def _read_marker(path: Path) -> Mapping[str, Any]:
    """A marker's content; nothing if it is not there or not one."""
    try:
        marker = json.loads(path.read_bytes())
    except (FileNotFoundError, ValueError):
        return {}
    return marker if isinstance(marker, dict) and isinstance(marker.get("files"), dict) else {}


def _write_marker(folder: Path, repo: str, revision: str, files: Sequence[File]) -> None:
    marker = {"repo": repo, "revision": revision, "files": {file.name: file.size for file in files}}
    new = folder / f"{MARKER}.{uuid.uuid4().hex}"
    with new.open("w", encoding="utf-8") as opened:
        json.dump(marker, opened, indent=1, sort_keys=True)
        opened.flush()
        os.fsync(opened.fileno())
    new.replace(folder / MARKER)
    (folder / _REPLACED).unlink(missing_ok=True)


def _is_inside(name: str) -> bool:
    path = PurePosixPath(name)
    return ".." not in path.parts and not path.is_absolute()


def _size_of(path: Path) -> int | None:
    return path.stat().st_size if path.is_file() else None


def _size(num_bytes: int) -> str:
    return f"{num_bytes / 1e9:.2f} GB" if num_bytes >= 1e7 else f"{num_bytes} bytes"


def _owner(folder: Path) -> str:
    """Who owns the nearest folder that is there, and who we are."""
    there = next(each for each in (folder, *folder.absolute().parents) if each.exists())
    stat = there.stat()
    return (
        f"{there} is of user {stat.st_uid}, group {stat.st_gid}, mode {stat.st_mode & 0o7777:o}, and this runs as user "
        f"{os.getuid()}, group {os.getgid()}; let that user write there"
    )


if __name__ == "__main__":
    # Process 1 of a container ignores signals it has no handler for. What is half fetched is fetched anew.
    signal.signal(signal.SIGTERM, lambda *_: os._exit(143))
    for _name, _value in _HUB.items():
        os.environ.setdefault(_name, _value)
    sys.exit(main(sys.argv[1:]))
