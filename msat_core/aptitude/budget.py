"""A spending cap that calls under way cannot break through."""

from __future__ import annotations

import asyncio


class Budget:
    """Money spent and set aside for calls under way; a call that could pass the cap waits, and at last is not made.

    Args:
        cap: in USD; None for no cap.

    Attributes:
        spent: in USD.
        exhausted: whether a call had to be left unmade.
    """

    def __init__(self, cap: float | None) -> None:
        self._cap = cap
        self._reserved = 0.0
        self._under_way = 0
        self._changed = asyncio.Condition()
        self.spent = 0.0
        self.exhausted = False

    @property
    def capped(self) -> bool:
        """Is there a cap?"""
        return self._cap is not None

    async def reserve(self, usd: float) -> bool:
        """Set money aside for a call; False once not even a single call under way could be paid."""
        async with self._changed:
            while self._cap is not None and self.spent + self._reserved + usd > self._cap:
                if self.exhausted or not self._under_way:
                    self.exhausted = True
                    return False
                await self._changed.wait()
            self._reserved += usd
            self._under_way += 1
            return True

    async def settle(self, reserved: float, spent: float) -> None:
        """Give back what was set aside and count what was spent."""
        async with self._changed:
            self._reserved -= reserved
            self._under_way -= 1
            self.spent += spent
            self._changed.notify_all()
