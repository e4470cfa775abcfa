"""`baton version`."""

from __future__ import annotations

from importlib.metadata import version as version_of


def version() -> None:
    """Print baton's version."""
    print(f"baton {version_of('baton')}")
