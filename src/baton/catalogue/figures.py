"""A number with its source: how the catalogue writes down what no program can extract."""

from __future__ import annotations

from pathlib import Path
from typing import TypeVar

import msgspec

from baton.base.errors import ConfigError

T = TypeVar("T")


class Figure(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One number, where it is published, and what to know about it."""

    value: float
    source: str
    note: str = ""


def names(folder: Path) -> tuple[str, ...]:
    """Return what a folder of facts has, sorted."""
    return tuple(sorted(path.stem for path in folder.glob("*.json")))


def read(folder: Path, name: str, kind: type[T]) -> T:
    """Read one file of facts; raises ConfigError, which lists what there is, for a name that is not among it."""
    if name not in names(folder):
        raise ConfigError(f"{name!r} is not in the catalogue's {folder.name}, which has {', '.join(names(folder))}")
    return msgspec.json.decode((folder / f"{name}.json").read_bytes(), type=kind)
