"""What a proof found: one line a check, and one word for all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """One thing that must hold."""

    name: str
    ok: bool
    expected: str
    found: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """All checks of one proof."""

    checks: tuple[Check, ...]

    @property
    def proven(self) -> bool:
        """True when every check holds."""
        return bool(self.checks) and all(check.ok for check in self.checks)

    @property
    def reason(self) -> str:
        """The failing checks, as text; empty when proven."""
        failed = [f"{check.name}: {check.found}" for check in self.checks if not check.ok]
        return "; ".join(failed)

    def to_json(self) -> dict[str, Any]:
        """For `--json`."""
        checks = [
            {"name": check.name, "ok": check.ok, "expected": check.expected, "found": check.found}
            for check in self.checks
        ]
        return {"verdict": "PROVEN" if self.proven else "NOT PROVEN", "reason": self.reason, "checks": checks}
