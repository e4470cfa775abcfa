"""The catalogue's file format: JSON, one entry a line, keys sorted, the same bytes for the same wheel."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

FORMAT = 1


def sha256(path: Path) -> str:
    """Return the SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def render(head: dict[str, object], sections: dict[str, object]) -> str:
    """Return the text of a catalogue file: the head's values one a line, then each section with one entry a line."""
    parts = [f"{_json(key)}: {_json(value)}" for key, value in sorted(({"format": FORMAT} | head).items())]
    for name, section in sorted(sections.items()):
        entries = [f"  {_json(k)}: {_json(v)}" for k, v in sorted(section.items())] if isinstance(section, dict) else []
        parts.append(f"{_json(name)}: " + ("{\n" + ",\n".join(entries) + "\n }" if entries else "{}"))
    return "{\n " + ",\n ".join(parts) + "\n}\n"


def _json(value: object) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
