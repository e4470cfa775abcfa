"""What does a router cost beside the others? CPU, added TTFT and memory of baton's gateway, its peers and the floor.

    python benchmarks/gateway.py            # about 11 min; writes benchmarks/results/gateway.md
    python benchmarks/gateway.py --quick    # about 2 min, for a look; writes nothing
    python benchmarks/gateway.py --soak 10  # baton alone under mixed load for 10 min: memory over time and its slope

Every router runs as its users start it, on core 0, before the same 2+2 fake vLLM engines (load/engine.c); engines and
clients (load/load.c) share core 1. The peers are installed into a folder outside the repository; one that cannot be is
a row that says why. Every router runs in every round, one after the other; a figure is the median round.

short    32-word prompt, OSL 1, not streamed, closed loop: CPU time (user + system) of the router's processes alone
4k       the same with a prompt of 4,096 words, 33 kB
paced    streams of OSL 1,000, each with one event every 5 ms, all together as from an engine's step. As many streams
         as every router keeps up with (its clients see 0.9 reads per event or more; one that is kept from its core
         reads several events at once and looks cheap); rounds below that are left out, a star where that leaves none
TTFT     32-word prompt, OSL 64, 20 requests/s at random instants; what the engine took is taken off. Plain clients
         on kept connections: where a router leaves Nagle's algorithm on, some first events come 40 ms late
memory   RSS and its highest after so many distinct prompts of 33 kB, sent after the rounds

sglang-router's P/D, like the floor, sends the client's whole request to prefill too: the fake prefill ends such a
stream after one event. Dynamo runs before its own mocker, as its engines speak no HTTP, and tokenizes and detokenizes,
here with a tokenizer whose tokens are the prompts' words, cheaper than a real one; its TTFT has the mocker's own time
in it: not like for like.
"""

import argparse
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from importlib.metadata import version
from pathlib import Path

from load import soak, table
from load.fleet import MIN_READS_PER_EVENT, STEP_US, Counted, Fleet
from load.processes import Processes
from load.routers import READY_S, ROOT, Router, dynamo, ours, rust
from load.table import Row

STREAMS = (256, 192, 160, 128, 96, 64, 32)
NAMES = ("floor", "baton", "baton-fronts", "sglang-pd", "sglang-whole", "vllm-pd", "vllm-pd-rr", "dynamo")
RESULTS = Path(__file__).parent / "results" / "gateway.md"


def paced(fleet: Fleet, router: Router, num_streams: int, seconds: float) -> Counted:
    assert router.child is not None
    return fleet.ask(
        router.child,
        router.port,
        model=router.paced_model,
        text="short",
        clients=num_streams,
        warm_s=0.7,
        seconds=seconds,
        osl=1000,
        stream=True,
        others=router.others,
    )


def probe(fleet: Fleet, router: Router, num_streams: int, seconds: float, behind: list[str]) -> None:
    """Add the router to those that are behind, if it is so twice: once may be somebody else's work."""
    reads = 0.0
    for _ in range(2):
        reads = max(reads, paced(fleet, router, num_streams, seconds).reads_per_event)
        if reads >= MIN_READS_PER_EVENT:
            return
    behind.append(f"{router.name} {reads:.2f}")


def streams_for(fleet: Fleet, rows: list[Row], levels: tuple[int, ...], seconds: float) -> int:
    """As many streams as every router that is compared keeps up with."""
    for num_streams in levels:
        behind: list[str] = []
        for row in rows:
            if row.router.is_comparable:
                attempt(row, "paced", probe, fleet, row.router, num_streams, seconds, behind)
        if not behind:
            return num_streams
        print(f"  {num_streams} streams are too many; reads per event: {', '.join(behind)}", flush=True)
    return levels[-1]


def measure_round(fleet: Fleet, row: Row, args: argparse.Namespace, num_streams: int) -> None:
    router, seconds = row.router, args.seconds
    assert router.child is not None
    common = {"model": router.model, "others": router.others}
    for text, into in (("short", row.short), ("long", row.long)):
        into.append(
            fleet.ask(
                router.child,
                router.port,
                text=text,
                clients=router.clients,
                warm_s=seconds / 4,
                seconds=seconds,
                **common,
            )
        )
    row.paced.append(paced(fleet, router, num_streams, 1.5 * seconds))
    row.ttft.append(
        fleet.ask(
            router.child,
            router.port,
            text="short",
            clients=64,
            per_s=20,
            warm_s=seconds / 4,
            seconds=2.5 * seconds,
            osl=64,
            stream=True,
            **common,
        )
    )


def measure_memory(fleet: Fleet, row: Row, num_prompts: int) -> None:
    router = row.router
    assert router.child is not None
    row.num_prompts = int(num_prompts * router.memory_share)
    before = fleet.num_legs()
    fleet.ask(
        router.child,
        router.port,
        model=router.model,
        text="long",
        clients=router.clients,
        num_requests=row.num_prompts,
        others=router.others,
    )
    row.memory_mib = router.child.memory_mib()
    row.legs = [(now - then) / row.num_prompts for now, then in zip(fleet.num_legs(), before, strict=True)]


def attempt(row: Row, what: str, work: object, *words: object) -> None:
    """Do it; a router that fails is a row that says so, and the run goes on."""
    if row.router.reason:
        return
    assert callable(work)
    try:
        work(*words)
    except LookupError as error:
        row.router.reason = f"{what}: {error}"
        print(f"  {row.router.name} is out: {row.router.reason}", flush=True)


def conditions(args: argparse.Namespace, rows: list[Row], cores: list[int], num_streams: int) -> str:
    shares = [share for row in rows for share in row.foreign_cores]
    commit = subprocess.run(
        ["git", "-C", str(ROOT), "describe", "--always", "--dirty"], capture_output=True, text=True, check=False
    ).stdout.strip()
    lines = [
        f"{cpu_model()}, {os.cpu_count()} cores: router on {cores[0]}, engines and clients on {cores[1]}; "
        f"Linux {platform.release()}, Python {platform.python_version()}, uvloop {version('uvloop')}, "
        f"httptools {version('httptools')}, msgspec {version('msgspec')}; baton {version('baton')} at {commit}.",
        f"{args.rounds} rounds, {args.seconds:g} s a figure; paced: {num_streams} streams, "
        f"{num_streams * 1e6 / STEP_US:,.0f} events/s; memory after {args.prompts:,} distinct 33 kB prompts.",
        f"Load average {os.getloadavg()[0]:.1f}; work of other processes: median "
        f"{statistics.median(shares or [0]):.2f} cores, at most {max(shares or [0]):.2f}.",
    ]
    lines.append(
        "legs/request: requests that prefill engines + the others are sent for one of a client's. *: clients saw under "
        f"{MIN_READS_PER_EVENT} reads per event in every round: too cheap to be true."
    )
    if any(not row.router.is_comparable for row in rows):
        lines.append(
            "Dynamo runs before its own mocker, (de)tokenizes with a tokenizer of whole words, and its TTFT has the "
            "mocker's own time in it: not like for like."
        )
    if table.is_noisy(rows):
        lines.insert(0, f"**NOISY: others took more than {table.MAX_FOREIGN_CORES} cores. Quote nothing of this.**")
    return "\n".join(f"- {line}" for line in lines)


def cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def start_all(processes: Processes, cores: list[int], routers: list[Router]) -> None:
    started = [router for router in routers if not router.reason]
    for router in started:
        router.start(processes, cores[0], cores[1])
    deadline_s = time.monotonic() + READY_S
    for router in started:
        router.wait(deadline_s)
    for router in routers:
        print(f"  {router.name:13} {router.reason or 'serves'}", flush=True)


def run(args: argparse.Namespace, processes: Processes, cores: list[int]) -> None:
    fleet = Fleet(processes, cores[1], args.port)
    routers = [
        *ours(fleet, processes.folder, args.port + 10),
        *rust(fleet, args.peers, args.port + 20),
        dynamo(fleet, processes.folder, args.peers, args.port + 60),
    ]
    rows = [Row(router) for router in routers if router.name in args.only]
    start_all(processes, cores, [row.router for row in rows])
    serving = [row for row in rows if not row.router.reason]
    levels = (args.streams,) if args.streams else STREAMS
    num_streams = streams_for(fleet, serving, levels, args.seconds / 2) if len(levels) > 1 else args.streams
    for index in range(args.rounds):
        print(f"round {index + 1} of {args.rounds}, {num_streams} streams", flush=True)
        for row in serving:
            attempt(row, "a round", measure_round, fleet, row, args, num_streams)
    for row in serving:
        attempt(row, "memory", measure_memory, fleet, row, args.prompts)
    text = f"{table.markdown(rows)}\n\n{conditions(args, rows, cores, num_streams)}\n"
    print(f"\n{text}\nlowest and highest round:")
    for row in serving:
        print(f"  {row.router.name:13} {row.spread()}")
    if not args.quick:
        RESULTS.parent.mkdir(exist_ok=True)
        RESULTS.write_text(text)
        print(f"\nwritten to {RESULTS}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="2 short rounds, fewer prompts; writes no file")
    parser.add_argument("--soak", type=float, metavar="MINUTES", help="baton alone, for its memory over time")
    parser.add_argument("--only", nargs="+", choices=NAMES, default=list(NAMES))
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--seconds", type=float, help="of a CPU figure in one round")
    parser.add_argument("--streams", type=int, help="paced streams; by default as many as all keep up with")
    parser.add_argument("--prompts", type=int, help="distinct 33 kB prompts before memory is read")
    parser.add_argument("--port", type=int, default=18600, help="first of 80 free ports")
    parser.add_argument(
        "--peers", type=Path, default=Path.home() / ".cache/baton/peers", help="where peers are installed"
    )
    args = parser.parse_args()
    args.rounds = args.rounds or (2 if args.quick else 5)
    args.seconds = args.seconds or (0.8 if args.quick else 2.0)
    args.prompts = args.prompts or (1_000 if args.quick else 25_000)
    args.peers = args.peers.expanduser().absolute()
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise SystemExit("benchmarks/gateway.py needs two cores: one for the router, one for engines and clients")
    os.sched_setaffinity(0, {cores[1]})
    with tempfile.TemporaryDirectory(prefix="baton-gateway-") as folder, Processes(Path(folder)) as processes:
        try:
            if args.soak:
                soak.run(Fleet(processes, cores[1], args.port), processes, cores, args.port + 10, args.soak)
            else:
                run(args, processes, cores)
        except KeyboardInterrupt:
            sys.exit(130)


if __name__ == "__main__":
    main()
