"""A deployment's folder on this machine: its lock, its state, its workers file, its logs.

<root>/<name>/lock           held (flock) by whoever runs or ends it; the kernel frees it with its holder
              state.json     last known State; every write replaces the file whole
              workers.yaml   what the gateway reads
              logs/<child>.log, and <child>.log.1 of the run before
<root>/compiled/             what PyTorch compiled while serving; without it the first request takes 15 s longer
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from pydantic import ValidationError

from baton.base.errors import ConfigError
from baton.local.clock import Clock
from baton.local.state import State


def default_root(env: dict[str, str], home: Path) -> Path:
    """$XDG_STATE_HOME/baton, or ~/.local/state/baton."""
    state_home = env.get("XDG_STATE_HOME", "")
    return (Path(state_home) if Path(state_home).is_absolute() else home / ".local" / "state") / "baton"


class RunDir:
    """One deployment's folder; made on first use."""

    def __init__(self, root: Path, name: str) -> None:
        self.name = name
        self.folder = root / name
        self.workers_file = self.folder / "workers.yaml"
        self.logs = self.folder / "logs"
        self.compiled = root / "compiled"

    def log(self, child: str) -> Path:
        """Where a child's output goes."""
        return self.logs / f"{child}.log"

    def fresh_logs(self) -> None:
        """Put the logs of the run before aside, over those of the one before it."""
        self.logs.mkdir(parents=True, exist_ok=True)
        for log in self.logs.glob("*.log"):
            log.replace(log.with_suffix(".log.1"))

    @contextlib.contextmanager
    def lock(self, what: str) -> Iterator[None]:
        """Own the deployment; `what` is the verb, told to those who come second.

        Raises   ConfigError naming the owner
        """
        with self._try_lock(fcntl.LOCK_EX, patience_s=0.3) as file:
            if file is None:
                raise ConfigError(self._owned_message())
            file.seek(0)
            file.truncate()
            file.write(f"{os.getpid()} {what}\n")
            file.flush()
            yield

    def refuse_if_owned(self) -> None:
        """Raise what `lock` would, without taking it.

        Raises   ConfigError naming the owner
        """
        if self.owner() is not None:
            raise ConfigError(self._owned_message())

    def owner(self) -> tuple[int, str] | None:
        """Process number and verb of whoever owns the deployment now; (0, "") if it has not said so yet."""
        if not (self.folder / "lock").exists():
            return None
        with self._try_lock(fcntl.LOCK_SH) as file:
            return self._written() if file is None else None

    async def lock_within(self, seconds: float, clock: Clock) -> bool:
        """Wait until nobody owns the deployment; False if somebody still does."""
        give_up_s = clock.now() + seconds
        while self.owner() is not None:
            if clock.now() >= give_up_s:
                return False
            await clock.sleep(0.1)
        return True

    def write_state(self, state: State) -> None:
        """Replace the known state."""
        self.write("state.json", state.model_dump_json(indent=1))

    def read_state(self) -> State | None:
        """The last known state; None if there never was one, or another version of baton wrote it."""
        try:
            return State.model_validate_json((self.folder / "state.json").read_text(encoding="utf-8"))
        except (OSError, ValidationError, ValueError):
            return None

    def write(self, name: str, text: str) -> Path:
        """Replace one file of the folder: a reader sees the old or the new, never a part."""
        self.folder.mkdir(parents=True, exist_ok=True)
        path = self.folder / name
        draft = path.with_name(f".{name}.{os.getpid()}")
        draft.write_text(text, encoding="utf-8")
        draft.replace(path)
        return path

    @contextlib.contextmanager
    def _try_lock(self, how: int, patience_s: float = 0.0) -> Iterator[IO[str] | None]:
        """The locked file, or None if it can't be had; patience outlasts those who only look (`owner`)."""
        self.folder.mkdir(parents=True, exist_ok=True)
        give_up_s = time.monotonic() + patience_s
        with (self.folder / "lock").open("a+", encoding="utf-8") as file:
            while True:
                try:
                    fcntl.flock(file, how | fcntl.LOCK_NB)
                except BlockingIOError:
                    if time.monotonic() < give_up_s:
                        time.sleep(0.02)
                        continue
                    yield None
                    return
                break
            yield file

    def _written(self) -> tuple[int, str]:
        pid, _, what = (self.folder / "lock").read_text(encoding="utf-8").strip().partition(" ")
        return (int(pid), what) if pid.isdigit() else (0, "")

    def _owned_message(self) -> str:
        pid, what = self._written()
        return (
            f"{self.name} is already running: process {pid or 'unknown'} (baton {what or '?'}) owns {self.folder}; "
            "stop it with `baton down`, or look at it with `baton status`"
        )


def all_runs(root: Path) -> list[RunDir]:
    """Every deployment this machine has seen, the one that changed last first."""
    stamped = [(path.stat().st_mtime, path.parent.name) for path in root.glob("*/state.json")]
    return [RunDir(root, name) for _, name in sorted(stamped, reverse=True)]
