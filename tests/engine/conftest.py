"""What the tests inside a vLLM environment share."""

# ruff: noqa: PLC0415 - torch and vLLM take seconds to import and are not there everywhere

import importlib.util
from collections.abc import Iterator
from pathlib import Path

import pytest

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that need vLLM, skip them where it is missing, and let vLLM warn as it likes."""
    missing = pytest.mark.skip(reason="vLLM is not installed here: pip install 'baton[local]'")
    for item in items:
        if item.path.parent == HERE and item.path.stem != "test_install":
            item.add_marker(pytest.mark.torch)
            item.add_marker(pytest.mark.filterwarnings("ignore"))
            if importlib.util.find_spec("vllm") is None:
                item.add_marker(missing)


@pytest.fixture
def stock_vllm() -> Iterator[None]:
    """Undo, after the test, what the repairs replace in this process."""
    from vllm.distributed.device_communicators import shm_broadcast
    from vllm.distributed.device_communicators.cpu_communicator import CpuCommunicator
    from vllm.model_executor.layers.fused_moe.experts.cpu_moe import CPUUnquantizedExperts
    from vllm.model_executor.layers.rotary_embedding.base import RotaryEmbedding
    from vllm.platforms.cpu import CpuPlatform

    replaced = [
        (RotaryEmbedding, "forward_cpu"),
        (CPUUnquantizedExperts, "apply"),
        (shm_broadcast, "sched_yield"),
        (CpuPlatform, "check_and_update_config"),
    ]
    kept = [(owner, name, vars(owner)[name]) for owner, name in replaced]
    yield
    for owner, name, value in kept:
        setattr(owner, name, value)
    for name in {"all_gatherv", "reduce_scatterv"} & vars(CpuCommunicator).keys():
        delattr(CpuCommunicator, name)
