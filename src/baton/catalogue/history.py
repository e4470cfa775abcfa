"""When a name came and went, over the versions the catalogue has; what may have been meant; what replaced it.

Pure: catalogues come in, answers go out. Never claims more than the versions looked at: a name that 0.17.1 has and
0.18.1 lacks went "between" the two.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from baton.catalogue.engine import EngineCatalogue, version_key

_REPLACEMENTS = Path(__file__).parent / "replacements.json"
_CLOSE = 0.72


@dataclass(frozen=True, slots=True)
class Life:
    """One unbroken stay of a name.

    first, last: the first and last known versions that have it. before: the known version just before `first`, which
    lacks it (None: `first` is the oldest known). until: the known version just after `last`, which lacks it (None: the
    newest known still has it).
    """

    first: str
    last: str
    before: str | None
    until: str | None


class Replacement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What took the place of a name that is gone.

    kind: flag, env or value. name: as it was written (a value as `--flag value`). by: what to write now; "" if nothing
    is needed any more. values: what an old value becomes ("*" any other, "" a bare switch; "" as the new one: nothing
    is needed); a value that is not among them stays. note: what changes in meaning. source: the public thread or
    release that says so.
    """

    engine: str
    kind: Literal["flag", "env", "value", "key"]
    name: str
    by: str
    note: str
    source: str
    values: dict[str, str] = {}

    def value(self, old: str) -> str:
        """Return what an old value is now; "" if nothing needs to be written for it."""
        return self.values.get(old, self.values.get("*", old))


def lives(catalogues: Iterable[EngineCatalogue], has: Callable[[EngineCatalogue], bool]) -> tuple[Life, ...]:
    """Return the stays of whatever `has` looks for, oldest first; empty if no known version has it."""
    ordered = sorted(catalogues, key=lambda c: version_key(c.version))
    names = [c.version for c in ordered]
    there = [has(c) for c in ordered]
    out: list[Life] = []
    for at, is_there in enumerate(there):
        if is_there and (at == 0 or not there[at - 1]):
            end = next((n for n in range(at, len(there)) if not there[n]), None)
            last = names[-1] if end is None else names[end - 1]
            out.append(Life(names[at], last, names[at - 1] if at else None, None if end is None else names[end]))
    return tuple(out)


def of_flag(catalogues: Iterable[EngineCatalogue], name: str) -> tuple[Life, ...]:
    """Return the stays of a flag written in full, under whatever alias or negation."""
    return lives(catalogues, lambda c: (m := c.flag(name)) is not None and not m.is_abbreviated)


def of_env(catalogues: Iterable[EngineCatalogue], name: str) -> tuple[Life, ...]:
    """Return the stays of an environment variable."""
    return lives(catalogues, lambda c: name in c.envs)


def of_key(catalogues: Iterable[EngineCatalogue], flag: str, path: str) -> tuple[Life, ...]:
    """Return the stays of a key of a config flag: `--eplb-config`, `num_redundant_experts`."""
    return lives(catalogues, lambda c: (m := c.flag(flag)) is not None and c.key(m.flag.config, path) is not None)


def close_flags(catalogue: EngineCatalogue, name: str, limit: int = 3) -> tuple[str, ...]:
    """Return flags spelled much like `name`, nearest first."""
    written = name.split("=", 1)[0].split(".", 1)[0]
    is_negated = written.startswith("--no-")
    wanted = f"--{written[5:]}" if is_negated else written
    candidates = [n for n, f in catalogue.flags.items() if f.negation or not is_negated]
    found = close(wanted.replace("_", "-"), candidates, limit)
    return tuple(f"--no-{n[2:]}" for n in found) if is_negated else found


def close_envs(catalogue: EngineCatalogue, name: str, limit: int = 3) -> tuple[str, ...]:
    """Return environment variables spelled much like `name`, nearest first."""
    return close(name, list(catalogue.envs), limit)


def close(name: str, names: Sequence[str], limit: int = 3) -> tuple[str, ...]:
    """Return those of `names` spelled much like `name`, case aside, nearest first."""
    by_lower = {n.lower(): n for n in names}
    return tuple(by_lower[m] for m in difflib.get_close_matches(name.lower(), list(by_lower), limit, _CLOSE))


def replacements() -> tuple[Replacement, ...]:
    """Read the hand-kept replacements; each is held against the extracted catalogues by the tests."""
    return msgspec.json.decode(_REPLACEMENTS.read_bytes(), type=tuple[Replacement, ...])


def replacement(known: Iterable[Replacement], engine: str, kind: str, name: str) -> Replacement | None:
    """Return what replaced a name; None if nobody wrote it down."""
    return next((r for r in known if (r.engine, r.kind, r.name) == (engine, kind, name)), None)
