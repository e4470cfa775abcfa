"""The child processes of a benchmark: each on one core, in a session of its own, and gone when the benchmark ends."""

import os
import signal
import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self


class Child:
    """A process and whatever it starts, told by its session."""

    def __init__(self, process: subprocess.Popen[bytes], log: Path) -> None:
        self.process = process
        self.log = log

    def pids(self) -> list[int]:
        return [int(stat.parent.name) for stat in Path("/proc").glob("[0-9]*/stat") if self._is_ours(stat)]

    def cpu_s(self) -> float:
        """User + system CPU seconds of all its processes and threads (the clock of clock_getcpuclockid(3))."""
        total = 0.0
        for pid in self.pids():
            try:
                total += time.clock_gettime((~pid << 3) | 2)
            except OSError:  # it ended since
                continue
        return total

    def memory_mib(self) -> tuple[float, float]:
        """Resident memory now and at its highest, summed over its processes."""
        sums = {"VmRSS": 0, "VmHWM": 0}
        for pid in self.pids():
            for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                name, _, value = line.partition(":")
                if name in sums:
                    sums[name] += int(value.split()[0])
        return sums["VmRSS"] / 1024, sums["VmHWM"] / 1024

    def last_words(self) -> str:
        lines = [line for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        return lines[-1][-200:] if lines else "it said nothing"

    def _is_ours(self, stat: Path) -> bool:
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            return False
        return int(fields[3]) == self.process.pid and fields[0] != "Z"


class Processes:
    """Starts children; kills them and theirs at the end, however it comes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.children: list[Child] = []

    def __enter__(self) -> Self:
        signal.signal(signal.SIGTERM, _leave)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for child in self.children:
            self.kill(child)

    def spawn(self, core: int, command: list[str], env: dict[str, str] | None = None) -> Child:
        log = self.folder / f"{len(self.children):02d}-{Path(command[0]).name}.log"
        with log.open("wb") as out:
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**os.environ, **(env or {})},
                cwd=self.folder,
                start_new_session=True,
                preexec_fn=lambda: os.sched_setaffinity(0, {core}),  # noqa: PLW1509 (no thread runs here)
            )
        self.children.append(Child(process, log))
        return self.children[-1]

    def kill(self, child: Child) -> None:
        for pid in child.pids():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        child.process.wait()


def _leave(signum: int, _frame: object) -> None:
    raise SystemExit(128 + signum)


def busy_s() -> float:
    """CPU seconds that all cores of the machine have worked, for anybody."""
    fields = [int(field) for field in Path("/proc/stat").read_text().splitlines()[0].split()[1:]]
    return (sum(fields[:8]) - fields[3] - fields[4]) / os.sysconf("SC_CLK_TCK")
