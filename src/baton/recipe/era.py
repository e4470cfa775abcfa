"""The Era: what a recipe sets otherwise for a range of engine releases.

A recipe is written for one release; its eras say what older ones need instead. Setting `engine.version` to another
release is then all there is to do.
"""

from __future__ import annotations

import re
from typing import Annotated

from pydantic import AfterValidator, Field, StringConstraints

from baton.recipe.document import Strict
from baton.recipe.flags import EnvName, Flags

_RANGE = re.compile(r"vllm-(\d+)\.(\d+)\.\.(\d+)\.(\d+)")


def _in_order(era: str) -> str:
    first, last = _bounds(era)
    if last < first:
        raise ValueError("expected the older release first")
    return era


def _bounds(era: str) -> tuple[tuple[int, int], tuple[int, int]]:
    found = _RANGE.fullmatch(era)
    assert found is not None, "the field's pattern"
    a, b, c, d = (int(number) for number in found.groups())
    return (a, b), (c, d)


class Settings(Strict):
    """Flags and variables that go over those of the recipe; null takes one away."""

    flags: Flags = Field(default={})
    env: dict[EnvName, str | None] = Field(default={})


class Era(Strict):
    """Releases from one minor to another, both included, and what they need."""

    era: Annotated[str, StringConstraints(pattern=f"^{_RANGE.pattern}$"), AfterValidator(_in_order)] = Field(
        description="Such as vllm-0.11..0.14."
    )
    engine: Settings = Settings()
    prefill: Settings = Settings()
    decode: Settings = Settings()

    def holds(self, version: str) -> bool:
        """Tell whether a release such as 0.14.1 lies in this era."""
        first, last = _bounds(self.era)
        major, minor = (int(number) for number in version.split(".")[:2])
        return first <= (major, minor) <= last
