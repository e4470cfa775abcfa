"""Leases: held, extended, given back, over; and how long by release."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from unit.engine.stand_in.standing import now_s, run

from baton.engine.stand_in.arguments import read_arguments
from baton.engine.stand_in.config import StepTime
from baton.engine.stand_in.leases import Leases

LEASE_S = 30.0


class Held:
    """Leases, and when which blocks were let go."""

    def __init__(self) -> None:
        self.leases = Leases(LEASE_S, self._let_go)
        self.let_go: list[tuple[float, list[int]]] = []

    def _let_go(self, blocks: list[int]) -> None:
        self.let_go.append((round(now_s(), 6), blocks))

    @property
    def counts(self) -> tuple[int, int, int]:
        return len(self.leases), self.leases.num_expired, self.leases.num_late_notices


def test_what_nobody_fetches_is_let_go_when_its_lease_ends() -> None:
    async def work() -> None:
        held = Held()
        held.leases.hold("a", [1, 2], expired=False)
        await asyncio.sleep(LEASE_S - 1)
        assert (held.let_go, held.counts, list(held.leases)) == ([], (1, 0, 0), ["a"])
        await asyncio.sleep(2)
        assert (held.let_go, held.counts) == ([(LEASE_S, [1, 2])], (0, 1, 0))

    run(work())


def test_a_lease_that_ends_at_once_is_over_with_the_next_turn() -> None:
    async def work() -> None:
        held = Held()
        held.leases.hold("a", [1], expired=True)
        await asyncio.sleep(0.001)
        assert (held.let_go, held.counts) == ([(0.0, [1])], (0, 1, 0))

    run(work())


def test_a_heartbeat_extends_to_two_thirds_of_a_lease_and_never_shortens_one() -> None:
    async def work() -> None:
        held = Held()
        held.leases.hold("early", [1], expired=False)
        held.leases.hold("late", [2], expired=False)
        await asyncio.sleep(5)
        held.leases.extend("early")  # until 25 s: sooner than it ends anyway
        await asyncio.sleep(20)
        held.leases.extend("late")  # until 45 s
        await asyncio.sleep(100)
        assert held.let_go == [(30.0, [1]), (45.0, [2])]
        assert held.counts == (0, 2, 0)

    run(work())


def test_a_lease_that_is_beaten_for_does_not_end() -> None:
    async def work() -> None:
        held = Held()
        held.leases.hold("a", [1], expired=False)
        for _ in range(100):
            await asyncio.sleep(LEASE_S / 6)
            held.leases.extend("a")
        assert (held.let_go, held.counts) == ([], (1, 0, 0))

    run(work())


def test_a_notice_gives_back_at_once_and_the_lease_no_longer_ends() -> None:
    async def work() -> None:
        held = Held()
        held.leases.hold("a", [1, 2], expired=False)
        await asyncio.sleep(3)
        held.leases.notify("a")
        await asyncio.sleep(100)
        assert (held.let_go, held.counts) == ([(3.0, [1, 2])], (0, 0, 0))

    run(work())


@pytest.mark.parametrize("how", ["notified", "expired", "never held"])
def test_a_second_notice_lets_nothing_go_and_is_counted_as_late(how: str) -> None:
    async def work() -> None:
        held = Held()
        if how != "never held":
            held.leases.hold("a", [1], expired=how == "expired")
            held.leases.notify("a") if how == "notified" else await asyncio.sleep(1)
        num_let_go = len(held.let_go)
        held.leases.notify("a")
        held.leases.extend("a")
        await asyncio.sleep(100)
        assert (len(held.let_go), held.leases.num_late_notices, len(held.leases)) == (num_let_go, 1, 0)

    run(work())


def test_an_engine_that_is_gone_lets_nothing_go() -> None:
    async def work() -> None:
        held = Held()
        held.leases.hold("a", [1], expired=False)
        held.leases.forget()
        await asyncio.sleep(100)
        assert (held.let_go, held.counts) == ([], (0, 0, 0))

    run(work())


@pytest.mark.parametrize(
    ("version", "extra", "env", "held_s"),
    [
        ("0.13.0", {}, {}, 480),
        ("0.21.0", {}, {}, 480),
        ("0.21.0", {}, {"VLLM_NIXL_ABORT_REQUEST_TIMEOUT": "77"}, 77),
        ("0.21.0", {"kv_lease_duration": 5}, {}, 480),
        ("0.22.1", {}, {}, 30),
        ("0.22.1", {}, {"VLLM_NIXL_ABORT_REQUEST_TIMEOUT": "77"}, 30),
        ("0.33.0", {"kv_lease_duration": 5}, {}, 5),
    ],
)
def test_how_long_kv_is_held_is_what_the_release_goes_by(
    version: str, extra: dict[str, Any], env: dict[str, str], held_s: float
) -> None:
    transfer = {"kv_connector": "NixlConnector", "kv_role": "kv_both", "kv_connector_extra_config": extra}
    words = ["serve", "m", "--kv-transfer-config", str(transfer).replace("'", '"')]
    config, _, _ = read_arguments(words, env, version, step_time=StepTime(), speed=1)
    assert config.kv_lease_duration_s == held_s
