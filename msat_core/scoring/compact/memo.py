"""Results kept by key: as many as fit, each made once, and made while others go on."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Hashable
from typing import Any, Generic, TypeVar

from msat_core.forking import Lock

Value = TypeVar("Value")


class Memo(Generic[Value]):
    """Keeps the results used last. Thread-safe: who asks for what another thread is making waits for that alone.

    Args:
        size: most results kept.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self._lock = Lock()
        self._values: OrderedDict[Hashable, Value] = OrderedDict()
        self._making: dict[Hashable, Lock] = {}

    def __len__(self) -> int:
        return len(self._values)

    def __getstate__(self) -> dict[str, Any]:
        """For another process: empty."""
        return {"size": self.size}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]  # starts again, empty

    def get(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """What was made for this key before, else what ``make`` makes now."""
        kept = self._look_up(key)
        if kept is not None:
            return kept[0]
        with self._lock:
            making = self._making.setdefault(key, Lock())
        with making:
            kept = self._look_up(key)
            if kept is not None:
                return kept[0]
            try:
                value = make()
                with self._lock:
                    self._values[key] = value
                    while len(self._values) > self.size:
                        self._values.popitem(last=False)
            finally:
                with self._lock:
                    self._making.pop(key, None)
            return value

    def clear(self) -> None:
        """Keep nothing."""
        with self._lock:
            self._values.clear()

    def _look_up(self, key: Hashable) -> tuple[Value] | None:
        with self._lock:
            if key not in self._values:
                return None
            self._values.move_to_end(key)
            return (self._values[key],)
