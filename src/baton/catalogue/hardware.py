"""Accelerators as their makers state them: memory, bandwidth, arithmetic, links.

Datasheet figures, dense (without sparsity), one direction. What is reached in practice is calibration, and not here.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from baton.catalogue import figures
from baton.catalogue.figures import Figure

_FOLDER = Path(__file__).parent / "hardware"


class Accelerator(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One GPU as it sits in its usual machine.

    memory_bytes: what the driver reports to programs, or the maker's usable capacity. hbm_bytes_per_s: memory
    bandwidth. dense_flops_per_s: by data type (bf16, fp8, fp4), without sparsity. nvlink_domain_size: GPUs that reach
    each other over NVLink. nvlink_bytes_per_s, nic_bytes_per_s, host_bytes_per_s (to and from the CPU's memory): one
    direction, one GPU's share. gpus_per_node: GPUs of one host.
    """

    name: str
    memory_bytes: Figure
    hbm_bytes_per_s: Figure
    dense_flops_per_s: dict[str, Figure]
    nvlink_domain_size: Figure
    nvlink_bytes_per_s: Figure
    gpus_per_node: Figure
    nics_per_gpu: Figure
    nic_bytes_per_s: Figure
    host_bytes_per_s: Figure


def accelerators() -> tuple[str, ...]:
    """Return the names of the accelerators the catalogue has."""
    return figures.names(_FOLDER)


def load_accelerator(name: str) -> Accelerator:
    """Read one accelerator; raises ConfigError, which lists the known ones, for another name."""
    return figures.read(_FOLDER, name, Accelerator)
