"""Published checkpoints whose size on disk is known: derived from the model's shape, never downloaded to find out."""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cache

from baton.catalogue.model import load_model
from baton.check.commands.launch import Launch

GB = 10**9
_NVFP4_BYTES = 9 / 16  # four bits, and an FP8 scale for every 16 of them
_REPOS = (
    (re.compile(r"deepseek-(?:r1|v3)(?:-0528|-0324)?-(?:nv)?fp4(?:-v\d)?"), "deepseek-r1", "nvfp4"),
    (re.compile(r"deepseek-(?:r1|v3)(?:-0528|-0324)?"), "deepseek-r1", "fp8"),
    (re.compile(r"deepseek-v2-lite(?:-chat)?"), "deepseek-v2-lite", "bfloat16"),
)


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """One checkpoint, its weights stored as `kind`; `how` says what its bytes are the sum of."""

    name: str
    kind: str
    num_bytes: float
    how: str

    @property
    def in_words(self) -> str:
        """Its size as people say it."""
        return f"{self.name} is about {self.num_bytes / GB:,.0f} GB ({self.how})"


def of_repo(repo: str) -> Checkpoint | None:
    """Return the checkpoint of a repository, or of a folder called like one; None if its size is not known."""
    name = repo.rstrip("/").rsplit("/", maxsplit=1)[-1].lower().replace("_", "-")
    return next((_checkpoint(model, kind) for pattern, model, kind in _REPOS if pattern.fullmatch(name)), None)


def of_launch(launch: Launch) -> Checkpoint | None:
    """Return the checkpoint that an engine loads; None if its size is not known."""
    return of_repo(launch.model.value) if launch.model is not None and launch.model.is_known else None


@cache
def _checkpoint(model_name: str, kind: str) -> Checkpoint:
    model = load_model(model_name)
    parts = model.parts()
    ends, total = parts.embedding + parts.head, 0.0
    if kind == "fp8":
        total = parts.total + parts.mtp + ends + (2 * ends if parts.mtp else 0)
        how = "FP8 with the MTP layer; embedding and head, both kept twice, in BF16"
    elif kind == "nvfp4":
        wide = parts.attention + ends + parts.router + parts.norms
        total = (parts.total - wide) * _NVFP4_BYTES + wide * 2
        how = "experts and MLPs in NVFP4, the rest in BF16, without the MTP layer"
    else:
        total, how = parts.total * 2, "BF16"
    return Checkpoint(f"{model.name} in {kind}", kind, total, how)
