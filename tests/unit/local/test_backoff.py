"""Waits between a crash and the next start."""

from __future__ import annotations

from baton.local.backoff import Backoff


def test_waits_double_up_to_the_longest() -> None:
    """A process that keeps crashing is started ever less often, but never given up."""
    backoff = Backoff()
    assert [backoff.after_crash(0.0) for _ in range(7)] == [1, 2, 4, 8, 16, 30, 30]
    for _ in range(2000):
        assert backoff.after_crash(5.0) == 30


def test_a_steady_process_starts_over() -> None:
    """One that had been ready for long crashed for another reason: it comes back at once."""
    backoff = Backoff(steady_s=60)
    for _ in range(4):
        backoff.after_crash(59.9)
    assert backoff.after_crash(60.0) == 1
    assert backoff.num_crashes == 1
