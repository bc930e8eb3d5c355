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


class Account:
    """What one sitting spends of a budget that it may share.

    Args:
        budget: shared.
        usd: spent by earlier runs, losses included.
        usd_lost: of it, set against calls that failed and may have been charged for.
    """

    def __init__(self, budget: Budget, usd: float, usd_lost: float) -> None:
        self._budget, self.usd, self.usd_lost = budget, usd, usd_lost
        budget.spent += usd

    @property
    def exhausted(self) -> bool:
        """Whether a call had to be left unmade."""
        return self._budget.exhausted

    async def reserve(self, usd: float) -> bool:
        """See :meth:`Budget.reserve`."""
        return await self._budget.reserve(usd)

    async def settle(self, reserved: float, usd: float, *, lost: bool = False) -> None:
        """Give back what was set aside for a call and count what it cost, or may have cost before it failed."""
        await self._budget.settle(reserved, usd)
        self.usd += usd
        self.usd_lost += usd if lost else 0.0
