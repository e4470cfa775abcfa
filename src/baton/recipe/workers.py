"""The workers file: a deployment once it has addresses.

`baton up` writes it and its gateway reads it; a person writes one to attach baton to servers that something else
started. Order has no meaning; names are unique.
"""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator
from ruamel.yaml import YAML

from baton.recipe.document import Strict, load
from baton.recipe.recipe import Name, Port, Role


def _http_origin(url: str) -> str:
    parts = urlsplit(url)
    _ = parts.port  # a ValueError unless it is a port
    if parts.scheme != "http" or not parts.hostname or parts.path not in ("", "/") or parts.query or parts.username:
        raise ValueError("expected http://host:port, without a path")
    return url.rstrip("/")


def _unique(ranks: tuple[int, ...]) -> tuple[int, ...]:
    if len(set(ranks)) < len(ranks):
        raise ValueError("each rank may be listed once")
    return ranks


class Worker(Strict):
    """One engine's HTTP address and the data-parallel ranks behind it."""

    name: Name
    role: Role = Field(strict=False)
    url: Annotated[str, AfterValidator(_http_origin)]
    dp_ranks: Annotated[tuple[Annotated[int, Field(ge=0)], ...], AfterValidator(_unique)] = Field(
        default=(0,), strict=False, min_length=1, description="Values of X-data-parallel-rank this address answers to."
    )
    nixl_port: Port | None = Field(
        default=None, description="NIXL side channel of the first rank, rank i on nixl_port + i; for network rules."
    )
    max_num_seqs: int | None = Field(
        default=None, gt=0, description="Most requests one rank runs at a time; None where it is not known."
    )
    kv_events_port: Port | None = Field(
        default=None, description="Where the first rank publishes its KV events, rank i on kv_events_port + i."
    )
    kv_replay_port: Port | None = Field(
        default=None,
        description="Where the first rank replays KV events that were missed, rank i on kv_replay_port + i.",
    )
    weights: str = Field(
        default="",
        description="Identity of the weights, such as a commit; ranks of different weights are never paired.",
    )
    attention_backend: str = Field(default="", description="The engine's, where known; it must be equal to be paired.")


class WorkersFile(Strict):
    """Every worker of a deployment, and the model names it answers to."""

    baton: Literal[1] = 1
    model: str = Field(min_length=1, description="The name the engines serve.")
    aliases: tuple[str, ...] = Field(default=(), strict=False)
    dtype: Literal["float32", "bfloat16", "float16"] = Field(
        default="float32", description="Number format of the computation: it sets how equal two answers must be."
    )
    checkpoint: Path | None = Field(
        default=None, strict=False, description="Folder with the model's config.json; needed to prove the bytes moved."
    )
    workers: tuple[Worker, ...] = Field(strict=False)

    @model_validator(mode="after")
    def _can_serve(self) -> Self:
        twice = [name for name, count in Counter(worker.name for worker in self.workers).items() if count > 1]
        if twice:
            raise ValueError(f"worker names must be unique; more than once: {', '.join(twice)}")
        for role in Role:
            if not any(worker.role is role for worker in self.workers):
                raise ValueError(f"no worker has role {role}; a disaggregated deployment needs prefill and decode")
        return self


def load_workers(path: Path) -> WorkersFile:
    """Read a workers file.

    Raises   ConfigError naming file, line, field, value and what is allowed
    """
    return load(path, WorkersFile)


def dump_workers(workers: WorkersFile) -> str:
    """The YAML text of a workers file; `load_workers` reads it back equal."""
    yaml, out = YAML(), io.StringIO()
    # Folded lines and characters that YAML takes for line ends would not be read back equal.
    yaml.width, yaml.allow_unicode = 1 << 30, False
    yaml.dump(workers.model_dump(mode="json", exclude_none=True), out)
    return out.getvalue()
