"""What was scored before: an exact-match memory of the instructions that came last."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from typing import Generic, TypeVar

from msat_core.forking import Lock

Out = TypeVar("Out")


class Repeats(Generic[Out]):
    """Results by instruction, the least recently used of which go first; thread-safe, also in a forked child.

    Each result is kept with the *state* it was computed in, taken before the computation began, and given back in the
    same state alone: whoever changes what results depend on gives another one from then on. Texts are kept as digests.

    Args:
        size: most results; 0 keeps nothing.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._kept: OrderedDict[bytes, tuple[object, Out]] = OrderedDict()
        self._lock = Lock()

    def get(self, text: str, state: object) -> Out | None:
        """What was kept of a text in this state; None where nothing was."""
        if not self.size:
            return None
        key = _key(text)
        with self._lock:
            kept = self._kept.get(key)
            if kept is None or kept[0] != state:
                return None
            self._kept.move_to_end(key)
            return kept[1]

    def put(self, text: str, state: object, result: Out) -> None:
        """Keep a result."""
        if not self.size:
            return
        key = _key(text)
        with self._lock:
            self._kept[key] = state, result
            self._kept.move_to_end(key)
            while len(self._kept) > self.size:
                self._kept.popitem(last=False)

    def __len__(self) -> int:
        return len(self._kept)

    def __reduce__(self) -> tuple[type[Repeats[Out]], tuple[int]]:
        return Repeats, (self.size,)  # another process begins with nothing


def _key(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
