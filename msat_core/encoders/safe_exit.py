"""Passes through compiled code, in the middle of which the interpreter must not end.

A daemon thread that comes back from C++ or Rust while the interpreter ends is taken down there, and the process with
it. So the end waits for the passes that are under way, and no further one begins.
"""

from __future__ import annotations

import atexit
import threading

from msat_core.forking import renew_in_children

LONGEST_WAIT_S = 10.0  # for passes under way; the longest takes about a second


class Passes:
    """Counts the passes that are under way; a context manager around each. Thread-safe, also in a forked child."""

    def __init__(self) -> None:
        self.renew()
        renew_in_children(self)
        atexit.register(self.close)

    def renew(self) -> None:
        """Nothing is under way: in a forked child, the parent's threads are not there."""
        self._changed = threading.Condition()
        self._n, self._ending = 0, False

    def __enter__(self) -> None:
        with self._changed:
            if self._ending and threading.current_thread() is not threading.main_thread():
                raise RuntimeError("The interpreter is ending: nothing can be routed from this thread any more.")
            self._n += 1

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._n -= 1
            self._changed.notify_all()

    def close(self) -> None:
        """Let no further pass begin beside the main thread, and wait for those that have."""
        with self._changed:
            self._ending = True
            self._changed.wait_for(lambda: self._n == 0, LONGEST_WAIT_S)


PASSES = Passes()
