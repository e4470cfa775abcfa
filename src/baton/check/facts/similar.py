"""Whether two names of objects are likely meant to be one."""

from __future__ import annotations

import re
from collections.abc import Iterable
from difflib import SequenceMatcher

_KINDS = {"pvc", "claim", "secret", "secrets", "volume", "vol", "storage"}
_ENOUGH = 0.8


def similar(name: str, others: Iterable[str]) -> str | None:
    """Return the name among others that is most like `name`; None if none is like it."""
    scored = [(_likeness(name, other), other) for other in others if other != name]
    score, other = max(scored, default=(0.0, ""))
    return other if score >= _ENOUGH else None


def _likeness(one: str, other: str) -> float:
    words = [[w for w in re.split(r"[^a-z0-9]+", n.lower()) if w and w not in _KINDS] for n in (one, other)]
    first, second = ("".join(w) for w in words)
    if not first or not second:
        return 0.0
    if first == second:
        return 1.0
    shorter, longer = sorted((set(words[0]), set(words[1])), key=len)
    contained = 0.9 if len(shorter) > 1 and shorter < longer else 0.0
    return max(contained, SequenceMatcher(None, first, second).ratio())
