"""A rule: one module of `rules/`, found by its name.

`rules/removed_env.py` is the rule `removed-env`. The module has

    its docstring     the page `baton check --explain removed-env` prints: a title line, then why it matters
    HARM              what the fault does, see finding.Harm
    SEE               public threads, () if none
    FIRES, SILENT     a file in which the rule fires and one in which it does not; both are tests
    check(bundle)     yields findings; pure, and quick: it runs on every file of every run

Adding a rule is adding that one file.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache

from baton.base.errors import ConfigError
from baton.check import rules as package
from baton.check.bundle import Bundle
from baton.check.finding import Finding, Harm


@dataclass(frozen=True, slots=True)
class Rule:
    """One rule; `page` is its docstring, `title` the first line of that without the full stop."""

    code: str
    title: str
    page: str
    harm: Harm
    see: tuple[str, ...]
    fires: str
    silent: str
    check: Callable[[Bundle], Iterator[Finding]]


@cache
def all_rules() -> tuple[Rule, ...]:
    """Return every rule there is, by code."""
    return tuple(_load(module.name) for module in pkgutil.iter_modules(package.__path__))


def rule(code: str) -> Rule:
    """Return the rule of a code; raises ConfigError, which lists them all, for one there is not."""
    found = next((r for r in all_rules() if r.code == code), None)
    if found is None:
        raise ConfigError(f"no rule {code!r}; the rules are {', '.join(r.code for r in all_rules())}")
    return found


def _load(name: str) -> Rule:
    module = importlib.import_module(f"{package.__name__}.{name}")
    page = (module.__doc__ or "").strip()
    return Rule(
        code=name.replace("_", "-"),
        title=page.splitlines()[0].rstrip("."),
        page=page,
        harm=module.HARM,
        see=module.SEE,
        fires=module.FIRES,
        silent=module.SILENT,
        check=module.check,
    )
