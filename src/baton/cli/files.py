"""Files that verbs write."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def aside(path: Path, text: str, *, mode: int = 0o644) -> Iterator[Path]:
    """Write a file beside the one it is to replace; it goes at the end unless it has taken that one's place."""
    new = path.with_name(f".{path.name}.new")
    try:
        new.write_text(text, encoding="utf-8", newline="")
        new.chmod(mode)
        yield new
    finally:
        new.unlink(missing_ok=True)


def replace(path: Path, text: str, *, mode: int = 0o644) -> None:
    """Write a file in one step: a reader sees the old text or the new."""
    with aside(path, text, mode=mode) as new:
        new.replace(path)
