"""When a name that a launch uses came and went, in words; and what took its place."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache

from baton.catalogue import history
from baton.catalogue.engine import EngineCatalogue, version_key
from baton.catalogue.history import Life, Replacement
from baton.check.commands import versions
from baton.check.commands.launch import Launch

_PACKAGES = {"vllm": "vLLM", "dynamo.vllm": "dynamo", "dynamo.frontend": "dynamo"}


def past(launch: Launch, has: Callable[[EngineCatalogue], bool]) -> Life | None:
    """Return the last stay of a name that ended before the release that runs; None if there is none."""
    return next((life for life in reversed(_lives(launch, has)) if life.until and _is_before(life.last, launch)), None)


def future(launch: Launch, has: Callable[[EngineCatalogue], bool]) -> Life | None:
    """Return the first stay of a name that began after the release that runs; None if there is none."""
    return next((life for life in _lives(launch, has) if not _is_before(life.first, launch)), None)


def in_words(launch: Launch, life: Life) -> str:
    """Return a stay as a sentence part: "from vLLM 0.12.0 to 0.19.1"."""
    package = _PACKAGES[launch.engine]
    if life.before is None and life.until is None:
        return f"in every {package} of the catalogue"
    if life.before is None:
        return f"up to {package} {life.last}, gone in {life.until}"
    return f"since {package} {life.first}" if life.until is None else f"from {package} {life.first} to {life.last}"


def replacement(launch: Launch, kind: str, *names: str) -> Replacement | None:
    """Return what replaced a name, by any of its spellings, in this engine or the one it embeds."""
    engines = (launch.engine, "vllm")
    return next((r for r in _replacements() if r.kind == kind and r.engine in engines and r.name in names), None)


def threads(found: Replacement | None) -> tuple[str, ...]:
    """Return the public threads that a replacement's source names, as addresses."""
    if found is None:
        return ()
    words = (word.strip(",;") for word in found.source.split())
    pulls = (word.split("#") for word in words if "#" in word and "/" in word)
    return tuple(f"https://github.com/{repo}/pull/{number}" for repo, number in pulls)


def takes(name: str) -> Callable[[EngineCatalogue], bool]:
    """Return whether a catalogue has a flag under a full name, any spelling of it."""
    return lambda catalogue: (match := catalogue.flag(name)) is not None and not match.is_abbreviated


def _lives(launch: Launch, has: Callable[[EngineCatalogue], bool]) -> Sequence[Life]:
    return history.lives(versions.candidates(launch.engine), has) if launch.version.is_known else ()


def _is_before(version: str, launch: Launch) -> bool:
    return version_key(version) < version_key(launch.version.catalogues[0].version)


@cache
def _replacements() -> tuple[Replacement, ...]:
    return history.replacements()
