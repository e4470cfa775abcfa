"""Which GPU a launch runs on, as far as its files or the person say: a node selector, a recipe, `--gpu`, an NVL72.

A ComputeDomain that a pod claims, or an image named after it, means GB200 or GB300; nothing is guessed from GPU counts.
"""

from __future__ import annotations

import re

from baton.check.bundle import Bundle
from baton.check.commands.launch import Launch
from baton.check.kubernetes.container import child

_GENERATIONS = {
    "h100-80gb": "hopper",
    "h200": "hopper",
    "b200": "blackwell",
    "gb200": "blackwell",
    "gb300": "blackwell",
}
_NVL72 = ("gb200", "gb300")
_NOT_CUDA = re.compile(r"rocm|cpu|xpu|tpu|hpu|npu|gaudi|ascend|neuron", re.IGNORECASE)


def candidates(bundle: Bundle, launch: Launch) -> tuple[str, ...]:
    """Return the accelerators of the catalogue that a launch may run on: one if it is named, () if nothing is known."""
    if not is_cuda(launch):
        return ()
    named = launch.accelerator or bundle.accelerator
    if named is not None:
        return (named,)
    return _NVL72 if _is_nvl72(bundle, launch) else ()


def generation(bundle: Bundle, launch: Launch) -> str | None:
    """Return "hopper" or "blackwell"; None if not known."""
    found = {_GENERATIONS.get(name) for name in candidates(bundle, launch)}
    return found.pop() if len(found) == 1 else None


def is_cuda(launch: Launch) -> bool:
    """Say whether nothing speaks against an NVIDIA GPU: no image or device of another make, no CPU."""
    container = launch.container
    if container is None:
        return launch.accelerator != "cpu"
    image = container.image.text.value if container.image is not None else ""
    return launch.accelerator != "cpu" and not _NOT_CUDA.search(image) and "amd.com/gpu" not in container.limits


def _is_nvl72(bundle: Bundle, launch: Launch) -> bool:
    workload, container = launch.workload, launch.container
    if workload is None:
        return False
    image = container.image.text.value if container is not None and container.image is not None else ""
    claims = child(workload.pod.spec, "resourceClaims")
    return bool(claims is not None and bundle.manifests.of_kind("ComputeDomain")) or bool(re.search("gb[23]00", image))
