"""Files on disk: written aside and renamed, never half of one, never somebody else's.

Whoever keeps something in a file does it through here, so that a crash, a full disk or a wrong path is met in one way.
"""

from __future__ import annotations

import hashlib
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from msat_core.errors import FileError, MsatError

try:
    import fcntl
except ImportError:  # Windows: logs are then for one process at a time, and nobody checks
    fcntl = None  # type: ignore[assignment]  # a module elsewhere

CHUNK = 1 << 20  # bytes read at once


def sha256_of(path: Path) -> str:
    """SHA-256 (hex) of a file."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def cache_root() -> Path:
    """Where msat keeps what can be made again: ``$MSAT_CACHE``, else ``~/.cache/msat``."""
    return Path(os.environ.get("MSAT_CACHE") or Path.home() / ".cache" / "msat")


def file_stem(name: str) -> str:
    """A name as part of a file's name."""
    return "".join(char if char.isalnum() or char in "-_." else "_" for char in name)


@contextmanager
def writing(path: Path, error: type[MsatError] = FileError) -> Iterator[None]:
    """Say in one sentence that a path cannot be written, and why."""
    try:
        yield
    except OSError as problem:
        reason = problem.strerror or str(problem)
        raise error(f"{path} cannot be written ({reason}): make room there, or name another place.") from None


@contextmanager
def file_aside(path: Path, *, mode: int = 0o666) -> Iterator[Path]:
    """A file to write instead of ``path``, which it replaces at the end; after a failure nothing of it is left.

    Args:
        path: where the file shall be; its folder is made if it does not exist.
        mode: permissions, less the user's umask.

    Raises:
        FileError: it cannot be written there.
    """
    aside = path.with_name(f".{secrets.token_hex(8)}.aside")
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists() and not path.is_file():
            raise FileError(f"{path} is not a regular file: name another place.")
        os.close(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode))
        try:
            yield aside
            with aside.open("rb+") as file:
                os.fsync(file.fileno())
            os.replace(aside, path)
        finally:
            aside.unlink(missing_ok=True)


def write_bytes(path: Path, data: bytes, *, mode: int = 0o666) -> Path:
    """Write a file aside, then rename; see :func:`file_aside`."""
    with file_aside(path, mode=mode) as aside:
        aside.write_bytes(data)
    return path


def write_text(path: Path, text: str) -> Path:
    """Write a UTF-8 file aside, then rename; see :func:`file_aside`."""
    return write_bytes(path, text.encode())


@contextmanager
def scratch_folder(parent: Path) -> Iterator[Path]:
    """A hidden folder in ``parent``, from which to :func:`move` what is finished; removed at the end."""
    scratch = parent / f".{secrets.token_hex(8)}.aside"
    with writing(parent):
        scratch.mkdir(parents=True)
    try:
        yield scratch
    finally:
        shutil.rmtree(scratch, ignore_errors=True)


def remove_leftovers(folder: Path) -> None:
    """Remove what a killed process wrote aside in a folder; nobody else may be writing there."""
    for aside in folder.glob(".*.aside"):
        aside.unlink()


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold a file's lock. Raises FileError where another process holds it; it ends with its holder, however he ends."""
    with path.open("rb") as file:
        try:
            lock(file.fileno(), wait=False)
        except BlockingIOError:
            raise FileError(f"{path.parent} is in use by another run: wait for it, or name another folder.") from None
        yield


def move(source: Path, place: Path) -> Path:
    """Move a finished file or folder into its place on the same disk, over a file or folder that is there."""
    with writing(place):
        place.parent.mkdir(parents=True, exist_ok=True)
        if place.is_dir():
            shutil.rmtree(place)
        os.replace(source, place)
    return place


def lock(file: int, wait: bool) -> None:
    """One process at a time; the system lets go of the lock when the process dies, however it dies."""
    if fcntl is not None:
        fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))


def sync_folder(folder: Path) -> None:
    """Make a new file's name durable too."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
