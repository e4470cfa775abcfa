"""How near are the formulas of both pools' queues to a simulation of every request and every step, and at what cost?

Prints p50, p90 and p99 of TTFT and of TPOT, predicted and simulated, with the error, over loads, ranks, lockstep
groups,
lengths and arrivals; then the worst errors, and the CPU of one prediction (after the first) and of one simulation.
The simulation: tests/unit/perf/des.py, seeded. Step times: straight lines near an H200's rank of DeepSeek-R1.

    python benchmarks/queueing.py                  # minutes on one core
    python benchmarks/queueing.py --requests 5000  # seconds, with noise
"""

from __future__ import annotations

import argparse
import platform
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from baton.perf.decode_queue import DecodePool
from baton.perf.prefill_queue import PrefillPool
from baton.perf.queueing import Lengths, Quantiles

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "unit" / "perf"))
import des

Row = tuple[str, float, Quantiles, list[float], float, float]

LOADS = (0.3, 0.5, 0.7, 0.9)
RANKS = ((1, 1), (4, 1), (32, 1), (8, 8), (32, 16))
PROMPTS: dict[str, tuple[tuple[des.Pair, ...], int]] = {
    "2k": (((2000, 100, 1.0),), 8192),
    "8k in chunks": (((8000, 100, 1.0),), 4096),
    "mixed": (((500, 100, 0.4), (2000, 100, 0.4), (8000, 100, 0.2)), 8192),
}
ANSWERS: dict[str, tuple[des.Pair, ...]] = {
    "200": ((1000, 200, 1.0),),
    "mixed": ((500, 50, 0.4), (1000, 200, 0.4), (4000, 600, 0.2)),
}


def prefill_step_s(tokens: float, isl: float) -> float:
    return 0.02 + tokens * 6e-5 * (1 + isl / 20_000)


def decode_step_s(batch: float, context: float) -> float:
    return 0.015 + batch * 1e-4 + batch * context * 3e-8


def prefill_rows(cv2: float, num_requests: int) -> Iterator[Row]:
    for name, (pairs, most) in PROMPTS.items():
        for ranks, group in RANKS:
            pool = PrefillPool(ranks, Lengths(pairs), prefill_step_s, most, cv2, 0.0, group)
            for load in LOADS:
                rate = load * pool.saturation_per_s
                pool.at(rate)
                began = time.process_time()
                found = pool.at(rate).ttft_s
                middle = time.process_time()
                sample, _ = des.prefill(
                    seed=1, rate_per_s=rate, num_ranks=ranks, pairs=pairs, step_s=prefill_step_s,
                    max_batched_tokens=most, arrival_cv2=cv2, lockstep_group=group,
                    num_requests=num_requests * (1 + ranks // 16),
                )  # fmt: skip
                ended = time.process_time()
                yield f"{name:12} {ranks:3} {group:3} {cv2:3.0f}", load, found, sample, middle - began, ended - middle


def decode_rows(cv2: float, num_requests: int) -> Iterator[Row]:
    for name, pairs in ANSWERS.items():
        for ranks, group in RANKS:
            pool = DecodePool(ranks, Lengths(pairs), decode_step_s, 64, 1e9, cv2, group)
            for load in LOADS:
                rate = load * pool.saturation_per_s
                pool.at(rate)
                began = time.process_time()
                found = pool.at(rate).tpot_s
                middle = time.process_time()
                sample, _, _ = des.decode(
                    seed=1, rate_per_s=rate, num_ranks=ranks, pairs=pairs, step_s=decode_step_s, max_batch=64,
                    kv_tokens=1e9, arrival_cv2=cv2, lockstep_group=group,
                    num_requests=max(num_requests, 1200 * ranks),
                )  # fmt: skip
                ended = time.process_time()
                yield f"{name:12} {ranks:3} {group:3} {cv2:3.0f}", load, found, sample, middle - began, ended - middle


def show(title: str, rows: Iterator[Row]) -> None:
    errors: list[list[float]] = [[], [], []]
    costs: list[tuple[float, float]] = []
    print(f"\n{title}: predicted / simulated, ms")
    print("lengths      ranks group CV2 load            p50                    p90                    p99")
    for name, load, found, sample, ours_s, des_s in rows:
        cells = []
        for column, percentile in zip(errors, (50, 90, 99), strict=True):
            mine, true = found.at(percentile), des.percentile(sample, percentile / 100)
            column.append(mine / true - 1)
            cells.append(f"{mine * 1e3:8.1f}/{true * 1e3:8.1f} {column[-1]:+5.0%}")
        costs.append((ours_s, des_s))
        print(name, f"{load:5.2f}", " ".join(cells), flush=True)
    for percentile, column in zip((50, 90, 99), errors, strict=True):
        sizes = [abs(error) for error in column]
        near, worst = np.quantile(sizes, 0.9), max(sizes)
        print(
            f"p{percentile}: median error {statistics.median(sizes):.1%}, 9 of 10 within {near:.1%}, worst {worst:.1%}"
        )
    ours, simulated = (statistics.mean(column) for column in zip(*costs, strict=True))
    print(f"CPU: {ours * 1e3:.2f} ms a prediction, {simulated * 1e3:.0f} ms a simulation: {simulated / ours:.0f}x")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=40_000, help="of one simulated pool")
    num_requests = parser.parse_args().requests
    print(f"Python {platform.python_version()}, numpy {np.__version__}, {num_requests} requests a simulation")
    for cv2, arrivals in ((1.0, "Poisson arrivals"), (4.0, "arrivals with CV2 = 4")):
        show(f"Prefill, TTFT, {arrivals}", prefill_rows(cv2, num_requests))
        show(f"Decode, TPOT, {arrivals}", decode_rows(cv2, max(2000, num_requests // 4)))


if __name__ == "__main__":
    main()
