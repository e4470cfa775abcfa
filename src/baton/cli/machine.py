"""This machine and this environment, read here and nowhere else."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path
from typing import Annotated, TypeAlias

import psutil
import typer

from baton.base.errors import ConfigError
from baton.local.run_dir import RunDir, all_runs, default_root
from baton.local.session import Machine

StateDir: TypeAlias = Annotated[
    Path | None,
    typer.Option("--state-dir", help="Where runs are kept; default $XDG_STATE_HOME/baton.", show_default=False),
]
Name: TypeAlias = Annotated[
    str | None, typer.Option("--name", help="Deployment, where several run; default the latest.", show_default=False)
]


def this_machine() -> Machine:
    """The interpreter, its vLLM, the cores this process may use, and the environment with its programs in front."""
    programs = Path(sys.executable).parent
    cores = psutil.Process().cpu_affinity() if sys.platform == "linux" else list(range(psutil.cpu_count() or 1))
    return Machine(
        env={**os.environ, "PATH": f"{programs}{os.pathsep}{os.environ.get('PATH', os.defpath)}"},
        cores=cores,
        temp=Path(tempfile.gettempdir()),
        python=sys.executable,
        vllm=(str(programs / "vllm"),),
    )


def state_root(given: Path | None) -> Path:
    """Folder of all deployments."""
    return given if given is not None else default_root(dict(os.environ), Path.home())


def pick_run(root: Path, name: str | None) -> RunDir | None:
    """The named deployment, else the running one, else the one that ran last; None if there never was one.

    Raises   ConfigError if several run and none is named, or the named one is unknown
    """
    runs = all_runs(root)
    if name is not None:
        found = [run for run in runs if run.name == name]
        if not found:
            known = ", ".join(run.name for run in runs) or "none"
            raise ConfigError(f"--name: no deployment {name!r} under {root}; known: {known}")
        return found[0]
    running = [run for run in runs if run.owner() is not None]
    if len(running) > 1:
        raise ConfigError(f"several deployments run: {', '.join(run.name for run in running)}; choose one with --name")
    return next(iter(running or runs), None)
