"""Finds the wheel of a released engine: in the cache, or downloaded there by pip, without its dependencies."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

from baton.base.errors import ConfigError


def obtain(distribution: str, version: str, folder: Path) -> Path:
    """Return the wheel `distribution`==`version` in `folder`, downloaded if it is not there yet.

    Raises ConfigError with pip's last line if the index has no such wheel for this machine.
    """
    folder.mkdir(parents=True, exist_ok=True)
    found = cached(distribution, version, folder)
    if found is not None:
        return found
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]
    result = subprocess.run(
        [*command, "--dest", str(folder), f"{distribution}=={version}"], capture_output=True, text=True, check=False
    )
    found = cached(distribution, version, folder)
    if result.returncode or found is None:
        said = (result.stderr.strip() or "pip said nothing").splitlines()[-1]
        raise ConfigError(f"no wheel of {distribution} {version}: {said}. Give one with --wheel FILE.")
    return found


def metadata(path: Path) -> str:
    """Return the METADATA of a wheel; raises ConfigError if the file is not a wheel."""
    try:
        with zipfile.ZipFile(path) as wheel:
            name = next(n for n in wheel.namelist() if n.endswith(".dist-info/METADATA") and n.count("/") == 1)
            return wheel.read(name).decode("utf-8", "replace")
    except (OSError, zipfile.BadZipFile, StopIteration) as error:
        raise ConfigError(f"{path} is not a wheel: {error or 'it has no METADATA'}") from error


def version_of(path: Path) -> str:
    """Return the version a wheel says it is."""
    lines = metadata(path).splitlines()
    return next((line.removeprefix("Version: ") for line in lines if line.startswith("Version: ")), "")


def cached(distribution: str, version: str, folder: Path) -> Path | None:
    """Return the wheel that `folder` has of a release; None if it has none."""
    return min(folder.glob(f"{distribution.replace('-', '_')}-{version}-*.whl"), default=None)
