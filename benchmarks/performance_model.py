"""The performance model beside every published point and every rehearsed one: predicted, measured, error.

    python benchmarks/performance_model.py            prints the tables (docs/performance_model.md has them)
    python benchmarks/performance_model.py --fit      fits the factors anew and writes them to the catalogue

Fitted is with the points that catalogue/rates marks "fit" and with the rehearsals in catalogue/calibration; every
factor is drawn to its start value too, with a standard deviation of 30 %, so that few points cannot carry one far.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import msgspec
import numpy as np

from baton.catalogue import factors as factors_module
from baton.catalogue.calibration import Calibration, Point, load_calibrations
from baton.catalogue.factors import Factors, load_factors
from baton.catalogue.figures import Figure
from baton.catalogue.hardware import load_accelerator
from baton.catalogue.model import load_model
from baton.catalogue.rates import Rate, load_rates
from baton.perf.cost import total_s
from baton.perf.kernels import Kernels
from baton.perf.layout import Layout
from baton.perf.rehearsed import Compared, compare
from baton.perf.step_time import Rank
from baton.plan.room import room
from baton.plan.setup import Setup
from baton.recipe.recipe import Role

MODEL = load_model("deepseek-r1")
FOLDER = Path(factors_module.__file__).parent / "factors"
PRIOR, POOL, KERNEL, STEP = 0.3, 0.08, 0.15, 0.04
"""standard deviations, in logarithms: of a factor around its start, and of a measured pool, kernel and step"""
START = {
    "hopper": {
        "hbm": 0.8,
        "gemm.fp8": 0.68,
        "grouped_gemm.fp8": 0.55,
        "mla": 0.667,
        "prefill_attention": 0.56,
        "kernel_s": 2.5e-6,
        "small_kernels": 14.0,
        "step_s": 1.5e-3,
        "overlap": 0.5,
        "imbalance_eplb": 1.27,
        "system.vllm": 1.2,
        "system.sglang": 1.1,
    },
    "blackwell": {"gemm.fp8": 0.55, "gemm.fp4": 0.45, "grouped_gemm.fp4": 0.35, "prefill_attention": 0.33, "mla": 0.4},
}
"""what is fitted, from where: shares that kernels' READMEs give (DeepGEMM, FlashMLA, FlashAttention-3), or guesses"""
SHARED = ("hbm", "kernel_s", "small_kernels", "step_s", "overlap", "imbalance_eplb", "system")
"""what Blackwell takes over from Hopper's fit: too few of its points are published to tell these apart"""


def layout_of(rate: Rate) -> Layout:
    """The layout a published point was measured with."""
    names = set(Layout.__dataclass_fields__) & set(Rate.__struct_fields__)
    return Layout(**{name: getattr(rate, name) for name in names})


def predicted(rate: Rate, factors: Factors) -> float:
    """A published point as the model has it, in the point's own unit."""
    gpu, layout = load_accelerator(rate.accelerator), layout_of(rate)
    kernels, rank = Kernels(gpu, factors), Rank(MODEL, gpu, factors, layout, rate.engine)
    if rate.kind == "matrix":
        return kernels.matrix("", rows=rate.tokens, into=rate.into, out=rate.out, dtype=rate.weight_dtype).time_s
    if rate.kind == "mla":
        operations = 2 * 128 * rate.batch * rate.context * 1088
        num_bytes = rate.batch * rate.context * 1152
        return kernels.attention("", operations=operations, num_bytes=num_bytes, is_mla=True, count=1, reason="").time_s
    if rate.kind == "prefill attention":
        operations = 2 * 128 * rate.tokens * rate.isl / 2 * 320
        num_bytes = 2 * rate.tokens * 128 * 320 * 2
        return kernels.attention(
            "", operations=operations, num_bytes=num_bytes, is_mla=False, count=1, reason=""
        ).time_s
    if rate.kind == "moe":
        up, down = (
            kernels.grouped("", rows=rate.tokens * 8, experts=256, into=into, out=out, dtype=rate.weight_dtype).time_s
            for into, out in ((7168, 4096), (2048, 7168))
        )
        return up + down
    prefill = rate.tokens / total_s(rank.prefill(rate.tokens, rate.isl)) / layout.tp_size if rate.tokens else 0.0
    if rate.kind == "prefill":
        return prefill
    batch = rate.batch or batch_that_fits(rate, layout)
    decode = batch * layout.tokens_a_step / total_s(rank.decode(batch, rate.context)) / layout.tp_size
    return decode if rate.kind == "decode" else 1 / (1 / decode + rate.isl / rate.osl / prefill)


def batch_that_fits(rate: Rate, layout: Layout) -> float:
    """Requests a rank has room for, at most the 1,024 that vLLM takes."""
    setup = Setup(role=Role.DECODE, layout=layout, replicas=1, nodes=1, max_num_seqs=1024, max_num_batched_tokens=1024)
    return min(1024.0, 0.95 * room(MODEL, load_accelerator(rate.accelerator), setup).kv_tokens / rate.context)


def rehearsed(found: Calibration, factors: Factors) -> list[Compared]:
    """Rehearsed steps beside what the model has for them."""
    return compare(found, load_model(found.model), load_accelerator(found.accelerator), factors)


def is_rate(rate: Rate) -> bool:
    """Whether more is better: tokens a second, not seconds."""
    return rate.kind in ("prefill", "decode", "mixed")


# fitting --------------------------------------------------------------------------------------------------------------


def fit() -> None:
    """Fit both generations and write their factors."""
    hopper = fitted("hopper", read("hopper"))
    write("hopper", hopper)
    start = msgspec.structs.replace(read("blackwell"), **{name: getattr(hopper, name) for name in SHARED})
    write("blackwell", fitted("blackwell", start))
    for name in ("hopper", "blackwell"):
        write(name, msgspec.structs.replace(read(name), spread=spreads()))


def fitted(generation: str, start: Factors) -> Factors:
    """Least squares in logarithms, by Gauss-Newton with numeric derivatives."""
    names, guesses = list(START[generation]), np.array(list(START[generation].values()))
    rates = [r for r in load_rates() if r.use == "fit" and r.accelerator in start.accelerators]
    rehearsals = [found for found in load_calibrations() if found.accelerator in start.accelerators]
    before = np.log([loose(name, guess) for name, guess in zip(names, guesses.tolist(), strict=True)])

    def residuals(now: np.ndarray) -> np.ndarray:
        factors = with_values(start, names, np.exp(now))
        of_rates = [np.log(predicted(r, factors) / r.value) / (POOL if is_rate(r) else KERNEL) for r in rates]
        of_steps = [-np.log(one.ratio) / STEP for found in rehearsals for one in rehearsed(found, factors)]
        return np.array([*of_rates, *of_steps, *((now - before) / PRIOR)])

    now = before.copy()
    for _ in range(12):
        at = residuals(now)
        slopes = np.column_stack([(residuals(now + 1e-4 * unit) - at) / 1e-4 for unit in np.eye(len(now))])
        step = np.linalg.lstsq(slopes, -at, rcond=None)[0]
        now = now + np.clip(step, -0.3, 0.3)
    return with_values(start, names, np.array([float(f"{value:.4g}") for value in np.exp(now)]))


def loose(name: str, value: float) -> float:
    """A factor above 1 is fitted by what it has above 1."""
    return value - 1 if name.startswith(("imbalance", "system")) else value


def with_values(factors: Factors, names: list[str], values: np.ndarray) -> Factors:
    """The factors with these values, marked as fitted."""
    for name, loosened in zip(names, values.tolist(), strict=True):
        field, _, key = name.partition(".")
        value = loosened + 1 if name.startswith(("imbalance", "system")) else loosened
        figure = Figure(value, "fitted: benchmarks/performance_model.py --fit")
        old = getattr(factors, field)
        factors = msgspec.structs.replace(factors, **{field: {**old, key: figure} if key else figure})
    return factors


def spreads() -> dict[str, Figure]:
    """Standard deviation of log(measured / predicted) by role over the pools that were held out."""
    found = {}
    for role in ("prefill", "decode"):
        held = [r for r in load_rates() if r.use == "held out" and r.kind == role]
        errors = [np.log(r.value / predicted(r, load_factors(r.accelerator))) for r in held]
        found[role] = Figure(
            float(f"{np.sqrt(np.mean(np.square(errors))):.3f}"), f"{len(held)} published pools held out"
        )
    return found


def read(generation: str) -> Factors:
    """A generation's factors."""
    return msgspec.json.decode((FOLDER / f"{generation}.json").read_bytes(), type=Factors)


def write(generation: str, factors: Factors) -> None:
    """Write them, sorted."""
    text = json.dumps(msgspec.to_builtins(factors), indent=1, sort_keys=True)
    (FOLDER / f"{generation}.json").write_text(text + "\n", encoding="utf-8")


# tables ---------------------------------------------------------------------------------------------------------------


def error(measured: float, model: float) -> float:
    """Relative error of a prediction."""
    return model / measured - 1


def table(rows: list[tuple[str, str, float, float]], unit: Callable[[float], str]) -> None:
    """Print points as Markdown, and their median absolute error."""
    print("| point | use | measured | predicted | error |\n|---|---|---|---|---|")
    for name, use, measured, model in rows:
        print(f"| {name} | {use} | {unit(measured)} | {unit(model)} | {error(measured, model):+.0%} |")
    for use in dict.fromkeys(row[1] for row in rows):
        errors = [abs(error(row[2], row[3])) for row in rows if row[1] == use]
        print(
            f"\n{use}: {len(errors)} points, median absolute error {np.median(errors):.1%}, largest {max(errors):.0%}"
        )
    print()


def main() -> None:
    """Fit if asked to, then print every point."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fit", action="store_true", help="fit the factors anew and write them")
    if parser.parse_args().fit:
        fit()
    rates = [r for r in load_rates() if r.use != "not comparable"]
    rows = [(r.name, r.use, r.value, predicted(r, load_factors(r.accelerator))) for r in rates]
    print("## Pools, tokens/s per GPU of the pool (mixed: output tokens/s per GPU)\n")
    table([row for r, row in zip(rates, rows, strict=True) if is_rate(r)], lambda value: f"{value:,.0f}")
    print("## Kernels, microseconds\n")
    table([row for r, row in zip(rates, rows, strict=True) if not is_rate(r)], lambda value: f"{value * 1e6:,.1f}")
    print("## Rehearsed on one H200: one rank without all2all, milliseconds a step\n")
    table(
        [
            (f"EP{found.ep_size} {describe(one.point)}", one.point.role, one.point.step_s, one.predicted_s)
            for found in load_calibrations()
            for one in rehearsed(found, load_factors(found.accelerator))
        ],
        lambda value: f"{value * 1e3:.1f}",
    )
    print("Not comparable, and why:\n")
    for rate in load_rates():
        if rate.use == "not comparable":
            print(f"- {rate.name}, {rate.value:,.0f}: {rate.why} ({rate.source})")


def describe(point: Point) -> str:
    """A point's coordinates."""
    if point.role == "decode":
        return f"decode, {point.batch:.0f} requests x {point.context:.0f} tokens"
    return f"prefill, {point.tokens:.0f} tokens of prompts of {point.isl:.0f}"


if __name__ == "__main__":
    main()
