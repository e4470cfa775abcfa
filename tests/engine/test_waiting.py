"""Idle engines leave the cores to busy ones: NIXL's progress thread and vLLM's queues sleep while they wait.

Run as a script it prints the CPU seconds that an idle NIXL agent takes in one second: test_waiting.py stock|repaired.
"""

# ruff: noqa: PLC0415 - torch and vLLM take seconds to import and are not there everywhere

import resource
import subprocess
import sys
import time

import pytest

from baton.engine.cpu_plugin import NIXL_POLL_US, apply_repairs, with_poll_delay


class Config:
    """Stands in for NIXL's binding: an attribute that is a data descriptor of the class."""

    def __init__(self) -> None:
        self.stored = -1

    @property
    def pthrDelay(self) -> int:
        return self.stored

    @pthrDelay.setter
    def pthrDelay(self, value: int) -> None:
        self.stored = value


@pytest.mark.parametrize(("asked", "set_to"), [(0, NIXL_POLL_US), (NIXL_POLL_US - 1, NIXL_POLL_US), (7000, 7000)])
def test_poll_delay_has_a_floor(asked: int, set_to: int) -> None:
    config = with_poll_delay(Config)()
    config.pthrDelay = asked
    assert config.pthrDelay == set_to
    assert isinstance(config, Config)


def test_idle_nixl_agent_no_longer_takes_a_core() -> None:
    pytest.importorskip("nixl")
    stock, repaired = (_cpu_of_idle_agent(which) for which in ("stock", "repaired"))
    assert repaired < 0.1
    assert stock > 3 * repaired


@pytest.mark.usefixtures("stock_vllm")
def test_a_queue_sleeps_between_two_looks() -> None:
    """Yielding is no sleep: it leaves the thread runnable, and Linux counts no voluntary switch for it."""
    from vllm.distributed.device_communicators import shm_broadcast

    assert _sleeps_of(shm_broadcast.sched_yield, looks=100) < 10
    apply_repairs(["queue_wait"])
    assert _sleeps_of(shm_broadcast.sched_yield, looks=100) >= 90


def _sleeps_of(wait, looks: int) -> int:
    before = resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw
    for _ in range(looks):
        wait()
    return resource.getrusage(resource.RUSAGE_THREAD).ru_nvcsw - before


def _cpu_of_idle_agent(which: str) -> float:
    command = [sys.executable, __file__, which]
    return float(subprocess.run(command, capture_output=True, text=True, timeout=60, check=True).stdout.split()[-1])


def main(which: str) -> None:
    if which == "repaired":
        apply_repairs(["nixl_poll"])
    from vllm.distributed.nixl_utils import NixlWrapper, nixl_agent_config

    agent = NixlWrapper("idle", nixl_agent_config(num_threads=4))
    before = time.process_time()
    time.sleep(1)
    print(time.process_time() - before)
    del agent


if __name__ == "__main__":
    main(sys.argv[1])
