"""Markdown that says what was meant: values as code, text as text, tables that no value can break out of."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

NOTHING = "-"
_SPECIAL = re.compile(r"(^[-+#]|[\\`*<>\[\]|&~]|(?<!\w)_|_(?!\w))")


def code(value: str) -> str:
    """Return a value as a code span for a table's cell; line breaks become spaces, nothing becomes `""`."""
    text = (" ".join(value.split()) or '""').replace("|", r"\|")
    fence = "`" * (1 + max((len(run) for run in re.findall("`+", text)), default=0))
    pad = " " if text.startswith("`") or text.endswith("`") else ""
    return f"{fence}{pad}{text}{pad}{fence}"


def plain(text: str) -> str:
    """Return what a person wrote as one line that Markdown shows as it is."""
    return _SPECIAL.sub(r"\\\1", " ".join(text.split()))


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return a table's lines; cells are Markdown without line breaks."""
    lines = [header, ["---"] * len(header), *rows]
    return [f"| {' | '.join(cell or ' ' for cell in line)} |" for line in lines]
