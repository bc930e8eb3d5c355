"""Lines of JSON that are only appended to: what a crash cut short is taken off, what is not ours is left alone."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Literal, TypeVar

from msat_core.errors import FileError, MsatError
from msat_core.files import CHUNK, file_aside, lock, sync_folder, writing
from msat_core.reading import parse_json

Entry = TypeVar("Entry")
Sync = Literal["always", "never"]

MOST_LOG = 4 << 30  # bytes of a log


@dataclass(frozen=True)
class Owner:
    """Whose a log is: what its first line says.

    Attributes:
        noun: what the log is called in messages.
        kind, version: of the format.
        whose: what two logs of a kind may differ in, in a word.
        identity: what must be equal.
        option: how another file is named.
    """

    noun: str
    kind: str
    version: int = 1
    whose: str = "owner"
    identity: Mapping[str, Any] = field(default_factory=dict)
    option: str = "file"

    def head(self) -> dict[str, Any]:
        """The first line, but for the day on which it was written."""
        return {"kind": self.kind, "version": self.version, **self.identity}


class JsonLines(Generic[Entry]):
    """A log of JSON lines, locked while it is open; only ever appended to, or rewritten as a whole.

    The first line says whose the log is; a file that says otherwise, or nothing, is refused untouched. An empty
    file and a log without an entry belong to nobody, and are taken. A last line without its end is what a crash
    leaves: it is finished if it is whole, else dropped.

    Args:
        path: the file; made if it does not exist, in a folder that does.
        owner: whose it must be.
        read: an entry of a line's JSON object; raises a LookupError, TypeError or ValueError if it is none.
        error: what is raised if the file is somebody else's, damaged, in use or cannot be written.
        sync: ``always``: what is appended is on the disk itself when it returns; ``never``: with the system.
        mode: permissions of a new file.
        headless: whether entries without a first line are an earlier version's, and given one.
        from_end: whether what is in the file when it is opened first is passed over, unread, but for its first line
            and the end of its last.

    Attributes:
        created: ISO date in the first line.
    """

    def __init__(
        self,
        path: Path,
        owner: Owner,
        read: Callable[[dict[str, Any]], Entry],
        *,
        error: type[MsatError],
        sync: Sync = "always",
        mode: int = 0o666,
        headless: bool = False,
        from_end: bool = False,
    ) -> None:
        self.path, self._owner, self._read, self._error = path, owner, read, error
        self._sync, self._mode, self._headless, self._from_end = sync, mode, headless, from_end
        self._file: int | None = None
        self._identity: tuple[int, int] | None = None  # device and inode of the file that was read
        self._end = 0  # bytes read and written so far
        self._n_lines = 0
        self.created = ""

    def open(self, *, wait: bool) -> tuple[list[Entry], bool]:
        """Lock the log; the entries that were not read before, and whether these are all that it holds.

        Args:
            wait: for another process that has it open; else it is an error.
        """
        while True:
            self._file = self._locked(wait)
            try:
                status = os.fstat(self._file)
                if self._identity != (status.st_dev, status.st_ino) or status.st_size < self._end:
                    self._identity, self._end, self._n_lines = None, 0, 0
                afresh = self._identity is None
                if afresh and self._from_end:
                    self._pass_over()
                entries = self._catch_up()
                if entries is not None:
                    self._identity = (status.st_dev, status.st_ino)
                    return entries, afresh
            except BaseException as problem:
                self._identity = None
                self.close()
                if isinstance(problem, OSError):
                    raise self._error(f"{self.path} cannot be read ({problem.strerror}): name another file.") from None
                raise

    def close(self) -> None:
        """Let go of the lock."""
        if self._file is not None:
            os.close(self._file)
            self._file = None

    def append(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """Add entries with one sync: all of them, or after an error none."""
        self._add("".join(json.dumps(line) + "\n" for line in lines).encode())
        self._n_lines += len(lines)

    def rewrite(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """Put these entries in the place of all, in one step, and close. Whoever waits for the lock finds the new."""
        data = "".join(json.dumps(line) + "\n" for line in [self._first_line(), *lines]).encode()
        try:
            with file_aside(self.path, mode=self._mode) as aside:
                aside.write_bytes(data)
                status = aside.stat()
        except FileError as problem:
            raise self._error(str(problem)) from None
        self._identity, self._end, self._n_lines = (status.st_dev, status.st_ino), len(data), len(lines) + 1
        self.close()

    def _first_line(self) -> dict[str, Any]:
        self.created = self.created or _today()
        return {**self._owner.head(), "created": self.created}

    def _locked(self, wait: bool) -> int:
        """The file's descriptor, with the lock of the very file that has the name: another may have renamed over it."""
        while True:
            if "\0" in str(self.path):
                raise self._error(f"{str(self.path)!r} is no file's name: name another place.")
            with writing(self.path, self._error):
                if self.path.exists() and not self.path.is_file():
                    raise self._foreign()
                flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
                file = os.open(self.path, flags, self._mode)
            try:
                if not stat.S_ISREG(os.fstat(file).st_mode):
                    raise self._foreign()
                lock(file, wait)
                if os.path.samestat(os.fstat(file), os.stat(self.path)):
                    return file
            except BlockingIOError:
                os.close(file)
                raise self._error(
                    f"{self.path} is in use by another run: wait for it, or name another {self._owner.option}."
                ) from None
            except FileNotFoundError:  # moved away meanwhile
                pass
            except BaseException:
                os.close(file)
                raise
            os.close(file)

    def _catch_up(self) -> list[Entry] | None:
        """Read what was not read yet and mend the last line; None if the file had to be rewritten and closed."""
        lines = self._rest().split(b"\n")
        tail = lines.pop()
        upgrade = False
        if not self._n_lines:
            if self._is_nobodys(lines, tail):
                self._truncate()
                self._add((json.dumps(self._first_line()) + "\n").encode())
                sync_folder(self.path.parent)
                self._n_lines = 1
                return []
            first = lines[0] if lines else tail
            upgrade = self._headless and self._entry(first) is not None
            if not upgrade:
                self._check_owner(first)
        entries = []
        start = 0 if self._n_lines or upgrade else 1
        for number, line in enumerate(lines[start:], start=self._n_lines + start + 1):
            entry = self._entry(line)
            if entry is None:
                raise self._error(
                    f"{self.path}, line {number} is damaged (only a last line can be mended): take that line out."
                )
            entries.append(entry)
        self._end += sum(len(line) + 1 for line in lines)
        self._n_lines += len(lines)
        if tail:
            last = self._entry(tail)
            if last is not None:
                entries.append(last)
            if last is not None or self._n_lines == 0:  # an entry, or the first line
                self._end += len(tail)
                self._add(b"\n")
                self._n_lines += 1
            else:
                self._truncate()
        if upgrade:
            self.rewrite([_parsed(line) or {} for line in [*lines, tail] if self._entry(line) is not None])
            self._identity, self._end, self._n_lines = None, 0, 0
            return None
        return entries

    def _pass_over(self) -> None:
        """Take the whole lines for read, where there are any behind the first."""
        assert self._file is not None
        os.lseek(self._file, 0, os.SEEK_SET)
        first, at, end, n_lines = b"", 0, 0, 0
        while part := os.read(self._file, CHUNK):
            first = first or part.partition(b"\n")[0]
            end = at + part.rfind(b"\n") + 1 if b"\n" in part else end
            at, n_lines = at + len(part), n_lines + part.count(b"\n")
        if n_lines > 1:
            self._check_owner(first)
            self._end, self._n_lines = end, n_lines

    def _is_begun(self, tail: bytes) -> bool:
        """Is this nothing, or a first line of ours that was cut?"""
        start = json.dumps(self._owner.head())[:-1].encode()
        date = json.dumps({"created": _today()})[1:].encode()
        return start.startswith(tail) or (
            tail.startswith(start) and _parsed(tail) is None and len(tail) < len(start) + 2 + len(date)
        )

    def _is_nobodys(self, lines: Sequence[bytes], tail: bytes) -> bool:
        """Is this nothing, or the first line of a log of this kind, whole or cut, without an entry behind it?"""
        if not lines:
            return self._is_begun(tail)
        head = _parsed(lines[0]) or {}
        kin = json.dumps([head.get("kind"), head.get("version")]) == json.dumps([self._owner.kind, self._owner.version])
        return len(lines) == 1 and not tail and kin

    def _check_owner(self, line: bytes) -> None:
        head = _parsed(line)
        if head is None or head.get("kind") != self._owner.kind:
            raise self._foreign()
        self.created = str(head.pop("created", ""))
        wanted, owner = self._owner.head(), self._owner
        for key in {**wanted, **head}:
            if json.dumps(head.get(key), sort_keys=True) != json.dumps(wanted.get(key), sort_keys=True):
                raise self._error(
                    f"{self.path} is the {owner.noun} of another {owner.whose}: its {key} is {head.get(key)!r}, this "
                    f"one's is {wanted.get(key)!r}. The two cannot be mixed: name another {owner.option}, or move the "
                    "file away."
                )

    def _foreign(self) -> MsatError:
        owner = self._owner
        return self._error(f"{self.path} is not a {owner.noun} of msat: name another {owner.option}, or move it away.")

    def _entry(self, line: bytes) -> Entry | None:
        data = _parsed(line)
        if data is None:
            return None
        try:
            return self._read(data)
        except (LookupError, TypeError, ValueError):
            return None

    def _rest(self) -> bytes:
        assert self._file is not None
        if os.fstat(self._file).st_size - self._end > MOST_LOG:
            raise self._error(f"{self.path} holds more than {MOST_LOG:,} bytes, more than a {self._owner.noun} can be.")
        os.lseek(self._file, self._end, os.SEEK_SET)
        parts = []
        while part := os.read(self._file, CHUNK):
            parts.append(part)
        return b"".join(parts)

    def _truncate(self) -> None:
        """Drop what stands behind the last whole line."""
        assert self._file is not None
        with writing(self.path, self._error):
            os.ftruncate(self._file, self._end)

    def _add(self, data: bytes) -> None:
        """Write at the end; after a failure the file is as before, so that nothing is glued to half a line."""
        assert self._file is not None
        with writing(self.path, self._error):
            try:
                left = memoryview(data)
                while left:
                    left = left[os.write(self._file, left) :]
                if self._sync == "always":
                    os.fsync(self._file)
            except BaseException:
                with suppress(OSError):
                    os.ftruncate(self._file, self._end)
                raise
        self._end += len(data)


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        data = parse_json(line)
    except ValueError:
        return None
    return data if isinstance(data, dict) else None


def _today() -> str:
    from datetime import datetime, timezone

    return datetime.now(timezone.utc).date().isoformat()
