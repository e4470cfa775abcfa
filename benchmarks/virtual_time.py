"""An event loop whose clock jumps: real code and real loopback sockets of one process, in virtual time.

When nothing is ready the loop does not sleep until its next timer; it puts its clock there. Bytes between two sockets
of this process are readable as soon as they have been sent, so asking the selector once more before a jump is enough
for them; a few more questions cover a connection that is being set up. What runs in other processes or threads would be
left behind: nothing here may wait for them.
"""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")
_QUIET = 3
"""questions without an answer before the clock jumps"""


class _Jumping(selectors.EpollSelector):
    """A selector that never sleeps; the time it was to sleep is added to `skipped_s`."""

    def __init__(self) -> None:
        super().__init__()
        self.skipped_s = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        for _ in range(_QUIET):
            ready = super().select(0)
            if ready or (timeout is not None and timeout <= 0):
                return ready
        if timeout is None:  # no timer either: only a socket can go on
            return super().select(1.0)
        self.skipped_s += timeout
        return []


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """A loop that starts at time 0 and never waits."""

    def __init__(self) -> None:
        self._jumping = _Jumping()
        super().__init__(self._jumping)

    def time(self) -> float:
        """Virtual seconds since the loop was made; work itself takes none."""
        return self._jumping.skipped_s


def run(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end on a loop of its own, in virtual time."""
    with asyncio.Runner(loop_factory=VirtualTimeLoop) as runner:
        return runner.run(work)
