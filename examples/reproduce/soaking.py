"""What the two soaks share: how a call ends that nobody answered, and how much memory this process holds (Linux)."""

from __future__ import annotations

import asyncio

from msat_core import DispatchError

UNANSWERED = (ConnectionError, TimeoutError, asyncio.TimeoutError, DispatchError)  # the first candidate's own, or ours


def resident_kib() -> int:
    """Resident memory, in KiB."""
    with open("/proc/self/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS"))
