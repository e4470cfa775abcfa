"""A recipe's page: its layout, its memory, and every setting: what was published, what it does, where it exists, what
replaces it, and what is set here.

Pure, and generated from the Deployment, the catalogue and nothing else. What is set is read off the rendered objects.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache

from baton.catalogue import history, published
from baton.catalogue.engine import EngineCatalogue, engines, load_engine, version_key, versions
from baton.catalogue.history import Life, Replacement
from baton.catalogue.published import Kind, Manifest, Meaning, Origin, Row, Where
from baton.recipe.deployment import Deployment
from baton.recipe.recipe import Recipe, Role
from baton.render import overview
from baton.render.given import Given, given
from baton.render.markdown import NOTHING, code, plain, table
from baton.render.overview import PRODUCT, Room

_HEADINGS: Mapping[Kind, str] = {
    "flag": "Flags",
    "key": "Keys of JSON flags",
    "env": "Environment variables",
    "field": "Fields of the manifest",
}
Values = Mapping[Where, str]


@dataclass(frozen=True, slots=True)
class _Facts:
    """What a page asks of a deployment and of the catalogue."""

    engine: str
    version: str
    parts: Mapping[Where, Given]
    meanings: Mapping[tuple[Kind, str], Meaning] = field(default_factory=published.meanings)
    replacements: tuple[Replacement, ...] = field(default_factory=history.replacements)

    def meaning(self, kind: Kind, name: str) -> Meaning | None:
        return self.meanings.get((kind, name))

    def ours(self, kind: Kind, name: str) -> Values:
        """What each part is given under a name."""
        return {part: value for part, found in self.parts.items() if (value := _of(found, kind).get(name)) is not None}

    def names(self, kind: Kind) -> tuple[str, ...]:
        """Every name of a kind that the engines are given, in order of first use."""
        both = (name for role in Role for name in _of(self.parts[role.value], kind))
        return tuple(dict.fromkeys(name for name in both if kind == "env" or ("." in name) is (kind == "key")))


def page(recipe: Recipe, deployment: Deployment, rooms: Mapping[Role, Room]) -> str:
    """Return the page of a recipe as Markdown; `rooms` has the memory of the roles for which it can be summed.

    Raises   ConfigError for a release that the catalogue lacks, or what the recipe sets and the target decides
    """
    facts = _Facts(deployment.engine_name, deployment.engine_version, _as_written(recipe, given(deployment)))
    found = published.of_recipe(recipe.name)
    lines = [
        *overview.head(recipe, deployment),
        *overview.layout(deployment),
        *overview.memory(deployment, rooms),
        *overview.gateway(recipe),
        *overview.eras(recipe),
        *(line for manifest in found for line in _published(manifest, facts)),
        *_unpublished(found, facts),
        *_about(),
    ]
    return "\n".join(lines) + "\n"


def _as_written(recipe: Recipe, parts: Mapping[Where, Given]) -> Mapping[Where, Given]:
    """The parts with the checkpoint's path as the recipe gives it, which says the same on every machine."""
    path = recipe.model.path
    if path is None:
        return parts
    return {
        part: Given(
            {**found.flags, "--model": str(path)} if part in ("prefill", "decode") else {}, found.env, found.fields
        )
        for part, found in parts.items()
    }


def _published(manifest: Manifest, facts: _Facts) -> Iterator[str]:
    yield from (f"## Published settings: {manifest.name}", "")
    yield from (f"- {origin.repository}, {code(_origin(origin))}" for origin in manifest.sources)
    yield from ("", manifest.note, "") if manifest.note else ("",)
    header = ("Setting", "Published", "What it does", "Exists in", "Replaced by", "We set", "Why otherwise")
    for kind, heading in _HEADINGS.items():
        rows = [_row(row, facts) for row in manifest.rows if row.kind == kind]
        if rows:
            yield from (f"### {heading}", "", *table(header, rows), "")


def _origin(origin: Origin) -> str:
    return f"{origin.path}@{origin.commit}" if origin.commit else origin.path


def _row(row: Row, facts: _Facts) -> tuple[str, ...]:
    meaning, ours = facts.meaning(row.kind, row.name), facts.ours(row.kind, row.name)
    assert meaning is not None, f"{row.name}: every published setting has a meaning"
    only = f" (in {', '.join(row.only_in)})" if row.only_in else ""
    same = _same(row.values, ours)
    return (
        code(row.name),
        _cell(row.values) + only,
        meaning.does,
        _exists(meaning),
        _replaced(meaning, facts),
        _cell(ours),
        "" if same else _why(meaning, facts, ours),
    )


def _unpublished(found: Sequence[Manifest], facts: _Facts) -> list[str]:
    known = {(row.kind, row.name) for manifest in found for row in manifest.rows}
    kinds: tuple[Kind, ...] = ("flag", "key", "env")
    rows = [_own_row(kind, name, facts) for kind in kinds for name in facts.names(kind) if (kind, name) not in known]
    title = "Settings of ours that nobody published" if found else "Settings"
    header = ("Setting", "We set", "What it does", "Exists in")
    return [f"## {title}", "", *table(header, rows), ""]


def _own_row(kind: Kind, name: str, facts: _Facts) -> tuple[str, ...]:
    meaning = facts.meaning(kind, name) or Meaning(kind=kind, name=name, does="See the engine's own help.")
    return code(name), _cell(facts.ours(kind, name)), meaning.does, _exists(meaning)


def _about() -> list[str]:
    known = ", ".join(f"{PRODUCT[e]} {versions(e)[0]} to {versions(e)[-1]}" for e in PRODUCT)
    return [
        "## How to read it",
        "",
        f"Releases looked at: {known}; nothing is said of others.",
        "A value without a role holds for both roles; `on` and `off` are switches. A role of several nodes shows its",
        "first node. `status.podIP` is the pod's own address.",
    ]


def _why(meaning: Meaning, facts: _Facts, ours: Values) -> str:
    """Why a setting is not as published: the release does not have it, or what is true of the setting."""
    lives = _lives(meaning) if meaning.of == facts.engine else ()
    if not ours and lives and not any(_within(life, facts.version) for life in lives):
        return f"{facts.version} does not have it."
    is_sourced = meaning.differs and meaning.source and meaning.of in PRODUCT
    return f"{meaning.differs} ({plain(meaning.source)})" if is_sourced else meaning.differs


def _within(life: Life, version: str) -> bool:
    return version_key(life.first) <= version_key(version) <= version_key(life.last)


def _exists(meaning: Meaning) -> str:
    if meaning.of not in PRODUCT:
        return f"{meaning.of} ({plain(meaning.source)})" if meaning.source else meaning.of
    product, lives = PRODUCT[meaning.of], _lives(meaning)
    return f"{product} {'; '.join(map(_life, lives))}" if lives else f"no {product} of the catalogue"


def _life(life: Life) -> str:
    if life.until is None:
        return f"{life.first} to now" if life.before is None else f"since {life.first}"
    start = f"{life.first} to {life.last}" if life.first != life.last else life.first
    return f"{start}, gone in {life.until}"


def _replaced(meaning: Meaning, facts: _Facts) -> str:
    found = history.replacement(facts.replacements, meaning.of, meaning.kind, meaning.name)
    if found is None:
        return NOTHING
    return ": ".join(part for part in (code(found.by) if found.by else "nothing", plain(found.note)) if part)


@cache
def _lives(meaning: Meaning) -> tuple[Life, ...]:
    known = _catalogues(meaning.of)
    finders: Mapping[Kind, Callable[[], tuple[Life, ...]]] = {
        "flag": lambda: history.of_flag(known, meaning.name),
        "key": lambda: history.of_key(known, *meaning.name.split(".", 1)),
        "env": lambda: history.of_env(known, meaning.name),
        "field": tuple,
    }
    return finders[meaning.kind]()


@cache
def _catalogues(engine: str) -> tuple[EngineCatalogue, ...]:
    return tuple(load_engine(engine, version) for version in versions(engine)) if engine in engines() else ()


def _of(found: Given, kind: Kind) -> Mapping[str, str]:
    return found.env if kind == "env" else found.fields if kind == "field" else found.flags


def _cell(values: Values) -> str:
    """Values of parts as one cell: `v` for all alike, else `v` after the name of each."""
    shown = dict(values)
    cells = []
    if "prefill" in shown and shown.get("prefill") == shown.get("decode"):
        cells.append(code(shown.pop("prefill")))
        del shown["decode"]
    cells += [code(value) if part == "deployment" else f"{part} {code(value)}" for part, value in shown.items()]
    return ", ".join(cells) or NOTHING


def _same(theirs: Values, ours: Values) -> bool:
    return {p: _folded(v) for p, v in theirs.items()} == {p: _folded(v) for p, v in ours.items()}


def _folded(value: str) -> str:
    """A value as the engine reads it: "False" is false."""
    return value.lower() if value in ("True", "False") else value
