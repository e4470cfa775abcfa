"""This machine's NVIDIA GPUs, as nvidia-smi lists them, and whether a deployment may run on them. It knows no torch."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from baton.base.errors import ConfigError
from baton.catalogue.hardware import load_accelerator
from baton.engine.devices import VISIBLE, device_env
from baton.recipe.deployment import Deployment

QUERY = ("--query-gpu=index,uuid,name,memory.total", "--format=csv,noheader,nounits")
_PATIENCE_S = 60.0
_ENOUGH = 0.95
"""of the catalogue's memory: what a driver reports is some per cent less than what a maker states"""


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU: its number and id with the driver, its name, its memory (None where the driver does not say)."""

    index: str
    uuid: str
    name: str
    memory_bytes: int | None


def of_deployment(deployment: Deployment, env: Mapping[str, str]) -> tuple[Gpu, ...]:
    """Look for the GPUs that a deployment may take; () for one that runs on the CPU, and where there are none.

    Raises   ConfigError if nvidia-smi is there and fails, or CUDA_VISIBLE_DEVICES names what it does not list
    """
    if deployment.hardware.accelerator == "cpu":
        return ()
    program = shutil.which("nvidia-smi", path=env.get("PATH"))
    return () if program is None else visible(parse(_listing(program, env)), env.get(VISIBLE))


def _listing(program: str, env: Mapping[str, str]) -> str:
    try:
        done = subprocess.run(
            [program, *QUERY], env=env, capture_output=True, text=True, check=False, timeout=_PATIENCE_S
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise ConfigError(f"{program} does not list this machine's GPUs: {error}; repair the driver") from error
    if done.returncode != 0:
        said = (done.stderr.strip() or done.stdout.strip() or "it said nothing").splitlines()[-1]
        raise ConfigError(
            f"{program} does not list this machine's GPUs (exit code {done.returncode}: {said}); repair the driver, or "
            "give this environment its GPUs"
        )
    return done.stdout


def parse(listing: str) -> tuple[Gpu, ...]:
    """Read nvidia-smi's answer to QUERY: a GPU a line, memory in MiB.

    Raises   ConfigError for a line that is none
    """
    return tuple(_gpu(line) for line in listing.splitlines() if line.strip())


def _gpu(line: str) -> Gpu:
    fields = [field.strip() for field in line.split(",")]
    if len(fields) != 4:
        raise ConfigError(f"nvidia-smi answered {line!r}; expected index, uuid, name, memory. Repair the driver")
    index, uuid, name, memory = fields
    return Gpu(index, uuid, name, int(memory) << 20 if memory.isdecimal() else None)


def visible(gpus: Sequence[Gpu], chosen: str | None) -> tuple[Gpu, ...]:
    """Return those that CUDA_VISIBLE_DEVICES leaves, in its order; all of them if it is not set (None).

    It holds numbers and beginnings of ids; what stands behind a -1 does not count (CUDA C++ Programming Guide,
    "CUDA Environment Variables").

    Raises   ConfigError for what is no GPU here
    """
    if chosen is None:
        return tuple(gpus)
    found: list[Gpu] = []
    for word in (word.strip() for word in chosen.split(",")):
        if word in ("", "-1"):
            break
        match = [gpu for gpu in gpus if word == gpu.index or (word.startswith("GPU-") and gpu.uuid.startswith(word))]
        if len(match) != 1 or match[0] in found:
            known = ", ".join(gpu.index for gpu in gpus) or "none"
            raise ConfigError(
                f"{VISIBLE}={chosen}: {word!r} is not one GPU of this machine, named once; it has: {known}"
            )
        found += match
    return tuple(found)


def fit(deployment: Deployment, gpus: Sequence[Gpu]) -> str:
    """Say in what the GPUs that a deployment takes differ from the recipe's; "" if in nothing.

    Raises   ConfigError if there are too few, or one has less memory than the recipe's accelerator
    """
    accelerator = deployment.hardware.accelerator
    if accelerator == "cpu":
        return ""
    needed = sum(engine.num_gpus for engine in deployment.engines)
    if not gpus:
        raise ConfigError(
            f"hardware.accelerator: {deployment.name} needs {needed} GPUs ({accelerator}), and this machine has none "
            f"that nvidia-smi or {VISIBLE} shows; the nearest that runs here is recipes/tiny-local.yaml, and for "
            "Kubernetes there is `baton render`"
        )
    device_env(deployment, [gpu.index for gpu in gpus])  # refuses too few
    wanted = load_accelerator(accelerator)
    taken = gpus[:needed]
    for gpu in taken:
        if gpu.memory_bytes is not None and gpu.memory_bytes < _ENOUGH * wanted.memory_bytes.value:
            raise ConfigError(
                f"hardware.accelerator: {deployment.name} is written for {accelerator} with "
                f"{wanted.memory_bytes.value / 1e9:.0f} GB; GPU {gpu.index} of this machine, {gpu.name}, has "
                f"{gpu.memory_bytes / 1e9:.0f} GB. Choose other GPUs with {VISIBLE}, or a recipe for what is here"
            )
    others = sorted({gpu.name for gpu in taken if not _is(gpu, accelerator)})
    return f"the recipe is written for {accelerator}, this machine has {', '.join(others)}" if others else ""


def _is(gpu: Gpu, accelerator: str) -> bool:
    """Tell by the name, such as NVIDIA H100 80GB HBM3, whether a GPU is of a catalogue's kind, such as h100-80gb."""
    return accelerator.partition("-")[0] in re.split(r"[^a-z0-9]+", gpu.name.lower())
