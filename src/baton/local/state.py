"""What is known of a running deployment, as one frozen value: the supervisor writes it, every verb reads it."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path

from baton.recipe.document import Strict
from baton.recipe.recipe import Role


class Phase(StrEnum):
    """How far one process is.

    installing   pip is fetching the engine
    starting     the process was launched
    loading      its log shows it loading the model
    warming      it answers, but the gateway has not yet verified a hand-off through it
    ready        the gateway sends it requests
    crashed      it ended by itself and will be started again
    stopped      it was ended on purpose
    """

    INSTALLING = "installing"
    STARTING = "starting"
    LOADING = "loading"
    WARMING = "warming"
    READY = "ready"
    CRASHED = "crashed"
    STOPPED = "stopped"


class ProcessId(Strict):
    """One process, told apart from a later one with the same number; `create_time` in seconds since 1970."""

    pid: int
    create_time: float


class Crash(Strict):
    """One unwanted end of a process."""

    at: float
    how: str
    last_lines: tuple[str, ...]
    restart_in_s: float


class ChildState(Strict):
    """One process; `since` is when `phase` began, seconds since 1970, `detail` the last line that says something."""

    name: str
    role: Role | None
    url: str
    log: Path
    phase: Phase
    since: float
    detail: str = ""
    process: ProcessId | None = None
    num_crashes: int = 0
    last_crash: Crash | None = None


class State(Strict):
    """One run of one deployment, as of the supervisor's last look.

    run_id        marks every process of the run (see `processes`)
    reason        why it is not ready; "" when it is
    started_at    seconds since 1970
    """

    run_id: str
    name: str
    recipe: Path
    recipe_digest: str
    model: str
    gateway_url: str
    workers_file: Path
    supervisor: ProcessId
    started_at: float
    ready: bool = False
    reason: str = "starting"
    children: tuple[ChildState, ...] = ()
