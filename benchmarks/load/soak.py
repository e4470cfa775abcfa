"""baton under mixed load for a while: does its memory stay flat?"""

import time

from load.fleet import Fleet
from load.processes import Processes
from load.routers import READY_S, ours

# Short and long prompts, each of which it has never seen, and streams whose clients leave in the middle.
MIX = (
    {"text": "short", "clients": 16, "seconds": 3.0},
    {"text": "long", "clients": 16, "seconds": 4.0},
    {"text": "short", "clients": 64, "seconds": 3.0, "osl": 200, "stream": True},
)


def slope_mib_per_h(points: list[tuple[float, float]]) -> float:
    """Least-squares slope of (seconds, MiB)."""
    mean_s = sum(s for s, _ in points) / len(points)
    mean_mib = sum(mib for _, mib in points) / len(points)
    square = sum((s - mean_s) ** 2 for s, _ in points)
    return 3600 * sum((s - mean_s) * (mib - mean_mib) for s, mib in points) / square if square else 0.0


def run(fleet: Fleet, processes: Processes, cores: list[int], port: int, minutes: float) -> None:
    """Print RSS after each turn of the mix, and how it rises in the second half."""
    baton = next(router for router in ours(fleet, processes.folder, port) if router.name == "baton")
    baton.start(processes, cores[0], cores[1])
    baton.wait(time.monotonic() + READY_S)
    if baton.reason or baton.child is None:
        raise SystemExit(f"baton does not serve: {baton.reason}")
    start_s, num_answers, points = time.monotonic(), 0, []
    print(f"start: {baton.child.memory_mib()[0]:.1f} MiB")
    while True:
        for load in MIX:
            try:
                num_answers += fleet.ask(baton.child, baton.port, model=baton.model, **load).answers
            except LookupError as error:
                raise SystemExit(f"baton failed after {num_answers:,} requests: {error}") from error
        now_s, (rss_mib, most_mib) = time.monotonic() - start_s, baton.child.memory_mib()
        points.append((now_s, rss_mib))
        print(f"{now_s:6.0f} s: {rss_mib:.1f} MiB, at most {most_mib:.1f}; {num_answers:,} requests", flush=True)
        if now_s >= 60 * minutes:
            break
    second = points[len(points) // 2 :]
    print(f"slope of the second half: {slope_mib_per_h(second):+.1f} MiB/h; {len(second)} readings")
