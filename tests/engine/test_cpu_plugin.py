"""When the plugin acts, when it refuses, and that acting twice is acting once."""

# ruff: noqa: PLC0415 - torch and vLLM take seconds to import and are not there everywhere

import os
from importlib.metadata import entry_points

import pytest

from baton.base.errors import ConfigError
from baton.engine import cpu_plugin


def test_vllm_finds_the_plugin_by_its_entry_point() -> None:
    [found] = entry_points(group="vllm.general_plugins", name="baton_cpu")
    assert found.load() is cpu_plugin.register


def test_a_platform_other_than_the_cpu_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even its release is looked at: a GPU vLLM of any version loads baton's plugin."""
    import vllm
    from vllm.platforms import current_platform

    monkeypatch.setattr(type(current_platform), "is_cpu", lambda self: False)
    monkeypatch.setattr(vllm, "__version__", "99.0.0")
    monkeypatch.setattr(cpu_plugin, "apply_repairs", lambda: pytest.fail("repaired"))
    cpu_plugin.register()


def test_an_unknown_vllm_on_a_cpu_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    import vllm

    monkeypatch.setattr(vllm, "__version__", "0.33.0+cpu")
    monkeypatch.setattr(cpu_plugin, "apply_repairs", lambda: pytest.fail("repaired"))
    with pytest.raises(ConfigError, match=r"vLLM 0\.33\.0\+cpu.*known: 0\.32\.0.*VLLM_PLUGINS"):
        cpu_plugin.register()


@pytest.mark.parametrize("found", ["0.32.0", "0.32.0+cpu", "0.32.0+cpu.avx2"])
def test_a_local_part_does_not_make_a_release_unknown(found: str) -> None:
    cpu_plugin.check_known("vLLM", found, cpu_plugin.KNOWN_VLLM)


@pytest.mark.usefixtures("stock_vllm")
def test_repairing_twice_is_repairing_once() -> None:
    from vllm.model_executor.layers.fused_moe.experts.cpu_moe import CPUUnquantizedExperts
    from vllm.model_executor.layers.rotary_embedding.base import RotaryEmbedding

    cpu_plugin.apply_repairs()
    once = RotaryEmbedding.forward_cpu, CPUUnquantizedExperts.apply
    cpu_plugin.apply_repairs()
    assert once == (RotaryEmbedding.forward_cpu, CPUUnquantizedExperts.apply)


@pytest.mark.usefixtures("stock_vllm")
def test_a_repair_can_be_applied_alone() -> None:
    from vllm.model_executor.layers.fused_moe.experts.cpu_moe import CPUUnquantizedExperts
    from vllm.model_executor.layers.rotary_embedding.base import RotaryEmbedding

    stock = CPUUnquantizedExperts.apply
    cpu_plugin.apply_repairs(["rotary"])
    assert hasattr(RotaryEmbedding.forward_cpu, "__wrapped__")
    assert CPUUnquantizedExperts.apply is stock


def start_method_after_configuring(monkeypatch: pytest.MonkeyPatch, asked: str, num_threads: str) -> str:
    """Return what vLLM starts its processes with after it has looked at a configuration on a CPU."""
    from vllm.config import VllmConfig

    for name, value in {cpu_plugin.START_METHOD: asked, "OMP_NUM_THREADS": num_threads, "LD_PRELOAD": ""}.items():
        monkeypatch.setenv(name, value)
    VllmConfig()
    return os.environ[cpu_plugin.START_METHOD]


@pytest.mark.usefixtures("stock_vllm")
def test_stock_overrules_an_asked_for_fork(monkeypatch: pytest.MonkeyPatch) -> None:
    """When this fails, vLLM leaves the choice to the environment and the repair can go."""
    assert start_method_after_configuring(monkeypatch, "fork", num_threads="1") == "spawn"


@pytest.mark.usefixtures("stock_vllm")
@pytest.mark.parametrize(
    ("asked", "num_threads", "used"), [("fork", "1", "fork"), ("fork", "2", "spawn"), ("spawn", "1", "spawn")]
)
def test_repaired_forks_where_asked_and_safe(
    monkeypatch: pytest.MonkeyPatch, asked: str, num_threads: str, used: str
) -> None:
    cpu_plugin.apply_repairs(["start_method"])
    assert start_method_after_configuring(monkeypatch, asked, num_threads) == used
