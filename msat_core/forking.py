"""What a forked child needs: its parent's other threads are not there, so nobody would ever open a lock they held."""

from __future__ import annotations

import os
import threading
import weakref
from types import TracebackType
from typing import Protocol


class Renewable(Protocol):
    """Something that must be made anew in a forked child."""

    def renew(self) -> None:
        """Called in the child, which has one thread."""


_renewed: weakref.WeakSet[Renewable] = weakref.WeakSet()


def renew_in_children(holder: Renewable) -> None:
    """Call ``one.renew()`` in every process forked from this one, as long as it lives."""
    _renewed.add(holder)


class Lock:
    """A mutex that a forked child finds open, and that is pickled and copied as a new one."""

    def __init__(self) -> None:
        self.renew()
        renew_in_children(self)

    def renew(self) -> None:
        """Put an open lock in the place of the old."""
        self._lock = threading.Lock()

    def acquire(self, blocking: bool = True) -> bool:
        """As of :class:`threading.Lock`."""
        return self._lock.acquire(blocking)

    def release(self) -> None:
        """As of :class:`threading.Lock`."""
        self._lock.release()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()

    def __reduce__(self) -> tuple[type[Lock], tuple[()]]:
        return Lock, ()


def _renew_all() -> None:
    for holder in list(_renewed):
        holder.renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew_all)
