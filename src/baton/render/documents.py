"""Rendered files as text: YAML whose bytes depend on nothing but the objects, headed by the recipe's hash."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import yaml

from baton.recipe.deployment import Deployment

_LOOKS_LIKE_ANOTHER_TYPE = re.compile(r"[-+]?\.?[0-9].*|[yYnN]", re.DOTALL)
"""beyond what PyYAML quotes by itself: numbers as Go's YAML reads them (1e3, 0o17), and its booleans y and n"""

Object = Mapping[str, Any]
MARK = "# Rendered by baton from recipe "


def header(deployment: Deployment, *notes: str) -> str:
    """Return the comment that heads every rendered file: what it was made from, and what to know about it."""
    lines = [f"{MARK}{deployment.name}, sha256 {deployment.recipe_digest}: change the recipe, not this file."]
    return "".join(f"{line}\n" for line in (*lines, *(f"# {note}" for note in notes)))


def document(deployment: Deployment, objects: Iterable[Object], *notes: str) -> str:
    """Return objects as one YAML file; keys keep their order, strings that YAML would read otherwise are quoted."""
    return header(deployment, *notes) + "---\n".join(_dump(each) for each in objects)


def _dump(each: Object) -> str:
    return yaml.dump(
        _plain(each), Dumper=_Dumper, sort_keys=False, default_flow_style=False, allow_unicode=False, width=120
    )


def _plain(value: Any) -> Any:
    """The same value in builtin types, no part of it shared with another: YAML would write an alias."""
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, str):
        return str(value)
    return [_plain(entry) for entry in value] if isinstance(value, Sequence) else value


class _Dumper(yaml.SafeDumper):
    """Block style with lists indented below their key, text of several lines as a literal block where it can be."""

    def increase_indent(self, flow: bool = False, indentless: bool = False) -> None:
        """Indent a list below its key, as people write it."""
        super().increase_indent(flow, False)

    def ignore_aliases(self, data: Any) -> bool:
        """Write every value out."""
        return True


def _text(dumper: yaml.SafeDumper, text: str) -> yaml.ScalarNode:
    style = '"' if _LOOKS_LIKE_ANOTHER_TYPE.fullmatch(text) else "|" if _is_block(text) else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", text, style=style)


def _is_block(text: str) -> bool:
    """Tell whether text has several lines, all of which a literal block shows as they are."""
    lines = text.split("\n")
    return len(lines) > 1 and all(line.isascii() and line == line.rstrip() and line.isprintable() for line in lines)


_Dumper.add_representer(str, _text)
