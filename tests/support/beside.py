"""What the project does not carry, found beside the checkout or by an environment variable; its tests skip without."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

_SHARED = Path(__file__).parents[3] / "shared"


def folder(name: str, variable: str) -> Path:
    """The folder `name` beside the checkout, or where `variable` says; without one the test is skipped, with words."""
    path = Path(os.environ.get(variable) or _SHARED / name)
    if not path.is_dir():
        pytest.skip(
            f"NOT VALIDATED: no {path} here; set {variable} to a folder like it (its README says what it holds)"
        )
    return path


def kubectl() -> str:
    """The path of kubectl; without one the test is skipped, with words."""
    found = shutil.which("kubectl")
    if found is None:
        pytest.skip("NOT VALIDATED: kubectl is not installed here")
    return found
