"""The fake engines and the load: compiled from C for the run, on one core together."""

import json
import random
import resource
import shutil
import subprocess
import time
import urllib.request
from dataclasses import dataclass
from pathlib import Path

from load.processes import Child, Processes, busy_s

SOURCES = Path(__file__).parent
STEP_US = 5000
MIN_READS_PER_EVENT = 0.9
"""A router that is kept from its core reads several events at once and looks cheap."""
STALL_MS = 35
"""Nagle's algorithm against delayed acknowledgements costs about 40 ms."""


@dataclass(frozen=True, kw_only=True)
class Counted:
    """What one run of the load saw."""

    answers: int
    errors: int
    events: int
    reads: int
    wall_s: float
    server_cpu_s: float
    load_cpu_s: float
    ttft_ms: list[float]
    foreign_cores: float

    @property
    def ms_per_answer(self) -> float:
        return 1e3 * self.server_cpu_s / max(self.answers, 1)

    @property
    def ms_per_1000_events(self) -> float:
        return 1e6 * self.server_cpu_s / max(self.events, 1)

    @property
    def reads_per_event(self) -> float:
        return self.reads / max(self.events, 1)


class Fleet:
    """Two prefill and four decode engines in one process, and what asks a router in front of them."""

    def __init__(self, processes: Processes, core: int, first_port: int) -> None:
        self.processes, self.core = processes, core
        self.prefill_ports = [first_port, first_port + 1]
        self.decode_ports = [first_port + 2, first_port + 3]
        self.whole_ports = [first_port + port for port in range(2, 6)]
        """Engines of an aggregated deployment: as many as the four of P/D."""
        self.random = random.Random(time.time_ns())
        for name in ("engine", "load"):
            if not shutil.which("cc"):
                raise SystemExit("benchmarks/gateway.py compiles its engines and its load: it needs a C compiler (cc)")
            binary = processes.folder / name
            subprocess.run(["cc", "-O3", "-o", binary, SOURCES / f"{name}.c", "-lm"], check=True)
        roles = [f"prefill:{port}" for port in self.prefill_ports] + [f"decode:{port}" for port in self.whole_ports]
        self.child = processes.spawn(core, [str(processes.folder / "engine"), str(STEP_US), *roles])
        letters = "abcdefghijklmnopqrstuvwxyz"
        self.words = list(dict.fromkeys("".join(self.random.choices(letters, k=7)) for _ in range(5000)))[:4095]
        self.texts = {"short": " ".join(self.words[:31]), "long": " ".join(self.words)}

    def ask(
        self,
        server: Child,
        port: int,
        *,
        model: str,
        text: str,
        clients: int,
        seconds: float = 0,
        warm_s: float = 0,
        num_requests: int = 0,
        per_s: float = 0,
        osl: int = 1,
        stream: bool = False,
        others: list[Child] | None = None,
    ) -> Counted:
        """Run the load against a router; `others` are processes whose CPU time is no stranger's."""
        body = self.processes.folder / "body.json"
        wanted = {"model": model, "messages": [{"role": "user", "content": f"@@@@@@@@@@@@ {self.texts[text]}"}]}
        limits = '"max_tokens":######,"ignore_eos":true,"stream":' + ("true" if stream else "false")
        body.write_text(json.dumps(wanted, separators=(",", ":"))[:-1] + "," + limits + "}")
        command: list[object] = [self.processes.folder / "load", "-p", port, "-b", body, "-c", clients, "-o", osl]
        command += ["-s", self.random.getrandbits(62), "-x", ",".join(map(str, server.pids()))]
        command += ["-n", num_requests] if num_requests else ["-w", warm_s, "-d", seconds]
        command += ["-r", per_s] if per_s else []
        children = [server, self.child, *(others or [])]
        before = busy_s() - sum(child.cpu_s() for child in children) - _ended_s()
        start_s = time.monotonic()
        ran = subprocess.run(
            ["taskset", "-c", str(self.core), *map(str, command)], capture_output=True, text=True, check=False
        )
        wall_s = time.monotonic() - start_s
        if ran.returncode:
            raise SystemExit(f"the load ended with {ran.returncode}: {ran.stderr[-500:]}")
        foreign_s = busy_s() - sum(child.cpu_s() for child in children) - _ended_s() - before
        counted = Counted(**json.loads(ran.stdout), foreign_cores=max(0.0, foreign_s / wall_s))
        if counted.errors > counted.answers / 100:
            raise LookupError(f"{counted.errors} of {counted.errors + counted.answers} failed: {ran.stderr[:300]}")
        return counted

    def num_legs(self) -> tuple[int, int]:
        """Requests that prefill engines and the others have been sent so far."""
        counts = {}
        for port in [*self.prefill_ports, *self.whole_ports]:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=5) as answer:
                counts[port] = int(answer.read().rpartition(b"fake:requests_total ")[2])
        return sum(counts[port] for port in self.prefill_ports), sum(counts[port] for port in self.whole_ports)


def answers(port: int, model: str) -> str:
    """Whether a router serves a request: empty, or why not."""
    body = {"model": model, "messages": [{"role": "user", "content": "hello you"}], "max_tokens": 1}
    request = urllib.request.Request(
        f"http://127.0.0.1:{port}/v1/chat/completions",
        json.dumps(body).encode(),
        {"content-type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request, timeout=5) as answer:
            return "" if b"choices" in answer.read() else "answered no completion"
    except OSError as error:
        return str(error)


def _ended_s() -> float:
    """CPU seconds of the children that have ended: the load's."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
