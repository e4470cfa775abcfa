"""The published recipes' settings, as their manifests have them, and what each setting does in a few words.

`published/`: one file a manifest, with the names of baton's recipes that take its place. `meanings.json`: every
setting that those manifests or baton's recipes use, once. Which releases know a setting is in the engines' catalogues,
what took its place in `replacements.json`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import msgspec

from baton.catalogue import figures

_FOLDER = Path(__file__).parent / "published"
_MEANINGS = Path(__file__).parent / "meanings.json"

Kind = Literal["flag", "key", "env", "field"]
"""a flag; a key inside a JSON flag, as --flag.key; an environment variable; a field of the manifest"""
Where = Literal["prefill", "decode", "frontend", "deployment"]
PARTS: tuple[Where, ...] = ("prefill", "decode", "frontend", "deployment")


class Origin(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One public file; `commit` is empty where the copy that was read has none."""

    repository: str
    path: str
    commit: str = ""


class Row(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One published setting.

    name: as the engine normalises it, so `--compilation_config` has dashes and `--no-x` is `--x` with value "off".
    published: value by part of the manifest; "both" stands for prefill and decode; a bare flag is "on". only_in: the
    commits that have it, where not all of the file's origins do.
    """

    kind: Kind
    name: str
    published: dict[Literal["both", "prefill", "decode", "frontend", "deployment"], str]
    only_in: tuple[str, ...] = ()

    @property
    def values(self) -> dict[Where, str]:
        """The value of each part that has one."""
        both = self.published.get("both")
        found = {part: self.published.get(part, both if part in ("prefill", "decode") else None) for part in PARTS}
        return {part: value for part, value in found.items() if value is not None}


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A published manifest, over the commits in which it has the same shape."""

    name: str
    recipes: tuple[str, ...]
    sources: tuple[Origin, ...]
    rows: tuple[Row, ...]
    note: str = ""


class Meaning(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a setting does.

    of: the engine of the catalogue that reads it, else the program or object it belongs to. differs: why a recipe may
    set it otherwise than it was published. source: where that stands, for what the catalogues do not say.
    """

    kind: Kind
    name: str
    does: str
    of: str = "vllm"
    differs: str = ""
    source: str = ""


def manifests() -> tuple[Manifest, ...]:
    """Read every published manifest, by name of its file."""
    return tuple(figures.read(_FOLDER, name, Manifest) for name in figures.names(_FOLDER))


def of_recipe(recipe: str) -> tuple[Manifest, ...]:
    """Return the published manifests whose place a recipe of this name takes; none for most."""
    return tuple(manifest for manifest in manifests() if recipe in manifest.recipes)


def meanings() -> dict[tuple[Kind, str], Meaning]:
    """Read what settings do, by kind and name."""
    read = msgspec.json.decode(_MEANINGS.read_bytes(), type=tuple[Meaning, ...])
    return {(meaning.kind, meaning.name): meaning for meaning in read}
