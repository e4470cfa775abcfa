"""Five sizing questions, asked of `baton plan` and aiconfigurator 0.12.0: answer, CPU time, distance to measured rates.

    python benchmarks/plan.py [--peers FOLDER] [--out FILE]

aiconfigurator is installed into a folder outside the repository (90 MB of measured kernels, no GPU, no network after).
Both are asked for disaggregated serving with vLLM. What was measured are published rates of each pool, at layouts that
neither need choose: the distance says how far a tool's rates are from what such GPUs have been seen to do.
"""

from __future__ import annotations

import argparse
import csv
import json
import platform
import resource
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from load.routers import install

AICONFIGURATOR = ["aiconfigurator==0.12.0"]


@dataclass(frozen=True)
class Question:
    """One question in both tools' words, and published tokens/s per GPU of each pool."""

    gpus: str
    model: str
    their_model: str
    their_system: str
    isl: int
    osl: int
    tpot_ms: int
    measured: tuple[float, float] | None = None
    where: str = "nothing published"

    def describe(self) -> str:
        """The question in a line."""
        return f"{self.model}, {self.gpus}, {self.isl} in, {self.osl} out, TPOT {self.tpot_ms} ms"


@dataclass(frozen=True)
class Reply:
    """What a tool answered: output tokens/s per GPU of all, of each pool, its layout, and its CPU seconds."""

    tokens: float
    prefill: float
    decode: float
    layout: str
    cpu_s: float


R1, V3, NVFP4 = "deepseek-r1", "deepseek-ai/DeepSeek-V3", "nvidia/DeepSeek-V3.1-NVFP4"
HOPPER, BLACKWELL = (7000.0, 2180.0), (26214.0, 10108.0)
HOPPER_WHERE, BLACKWELL_WHERE = "vLLM, H200, prefill EP16, decode EP32", "vLLM, GB200, prefill DEP2, decode DEP8"
QUESTIONS = (
    Question("32xH200", R1, V3, "h200_sxm", 2000, 2000, 80, HOPPER, HOPPER_WHERE),
    Question("32xH200", R1, V3, "h200_sxm", 2000, 1000, 50, HOPPER, HOPPER_WHERE),
    Question("64xH200", R1, V3, "h200_sxm", 4000, 1000, 100, HOPPER, HOPPER_WHERE),
    Question("16xGB200", R1, NVFP4, "gb200", 2000, 2000, 60, BLACKWELL, BLACKWELL_WHERE),
    Question("8xH200", "qwen3-32b", "Qwen/Qwen3-32B", "h200_sxm", 2000, 500, 30),
)


def cpu_of(command: list[str], cwd: Path) -> tuple[float, subprocess.CompletedProcess[str]]:
    """Run a command to its end; its CPU seconds, children included."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=cwd)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, done


def ours(q: Question) -> Reply | str:
    """Ask baton; what it said instead if it has no answer."""
    command = [sys.executable, "-m", "baton", "plan", "--model", q.model, "--gpus", q.gpus, "--json"]
    command += ["--isl", str(q.isl), "--osl", str(q.osl), "--tpot", f"{q.tpot_ms}ms"]
    cpu_s, done = cpu_of(command, Path.cwd())
    if done.returncode:
        return done.stderr.strip().splitlines()[-1]
    best = json.loads(done.stdout)["best"][0]
    layout = " + ".join(f"{p['replicas']} x {p['gpus_per_replica']}" for p in (best["prefill"], best["decode"]))
    return Reply(
        best["output_tokens_per_s_per_gpu"],
        best["prefill_tokens_per_s_per_prefill_gpu"],
        best["decode_tokens_per_s_per_decode_gpu"],
        layout,
        cpu_s,
    )


def theirs(q: Question, python: Path) -> Reply | str:
    """Ask aiconfigurator; what it said instead if it has no answer."""
    number = q.gpus.split("x", maxsplit=1)[0]
    with tempfile.TemporaryDirectory() as folder:
        command = [str(python.with_name("aiconfigurator")), "cli", "default", "--model-path", q.their_model]
        command += ["--total-gpus", number, "--system", q.their_system, "--backend", "vllm", "--serving-mode", "disagg"]
        command += ["--isl", str(q.isl), "--osl", str(q.osl), "--ttft", "5000", "--tpot", str(q.tpot_ms)]
        cpu_s, done = cpu_of([*command, "--save-dir", "out", "--no-color"], Path(folder))
        found = list(Path(folder).rglob("best_config_topn.csv"))
        if not found:
            return (done.stderr or done.stdout).strip().splitlines()[-1][:200]
        with found[0].open(encoding="utf-8") as source:
            best = next(csv.DictReader(source))
    gpus = {pool: int(best[f"({pool})tp"]) * int(best[f"({pool})pp"]) * int(best[f"({pool})dp"]) for pool in "pd"}
    layout = " + ".join(f"{best[f'({pool})workers']} x {gpus[pool]}" for pool in "pd")
    return Reply(
        float(best["seq/s"]) * q.osl / int(number),
        float(best["(p)seq/s/worker"]) * q.isl / gpus["p"],
        float(best["(d)seq/s/worker"]) * q.osl / gpus["d"],
        layout,
        cpu_s,
    )


def row(name: str, reply: Reply | str, measured: tuple[float, float] | None) -> str:
    """A line of the table."""
    if isinstance(reply, str):
        return f"| {name} | no answer: {reply} | | | | |"
    pairs = zip((reply.prefill, reply.decode), measured, strict=True) if measured else ()
    far = [f" {got / was - 1:+.0%}" for got, was in pairs] or ["", ""]
    pools = f"{reply.prefill:,.0f}{far[0]} | {reply.decode:,.0f}{far[1]}"
    return f"| {name} | {reply.layout} | {reply.tokens:,.0f} | {pools} | {reply.cpu_s:.1f} |"


def main() -> None:
    """Ask everything, print as it comes, write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--peers", type=Path, default=Path.home() / ".cache/baton/peers", help="where peers are installed"
    )
    parser.add_argument("--out", type=Path, help="write the page here too")
    args = parser.parse_args()
    python, reason = install(args.peers.expanduser().absolute(), "aiconfigurator", AICONFIGURATOR)
    if reason:
        sys.exit(f"aiconfigurator: {reason}")
    lines = [
        "# baton plan beside aiconfigurator 0.12.0",
        "",
        f"`python benchmarks/plan.py` on {platform.machine()}, Python {platform.python_version()}, one run each.",
        "Rates are predicted tokens/s per GPU: output over all GPUs; prefill and decode of their pool, and how far",
        "they are from published rates, with which baton was fitted: of other layouts, at another TPOT, so only how",
        "far from what such GPUs have been seen to do.",
    ]
    ratios = []
    for q in QUESTIONS:
        mine, other = ours(q), theirs(q, python)
        lines += ["", f"**{q.describe()}**; measured: {q.where}", ""]
        lines += ["| tool | prefill + decode GPUs | output | prefill | decode | CPU s |", "|---|---|---|---|---|---|"]
        if q.measured:
            lines.append(f"| measured | | | {q.measured[0]:,.0f} | {q.measured[1]:,.0f} | |")
        lines += [row("baton", mine, q.measured), row("aiconfigurator", other, q.measured)]
        if isinstance(mine, Reply) and isinstance(other, Reply):
            ratios.append(other.cpu_s / mine.cpu_s)
            lines.append(f"\nCPU: aiconfigurator / baton {ratios[-1]:.0f}")
        print(lines[-1], flush=True)
    page = "\n".join(lines) + "\n"
    print(page)
    if args.out:
        args.out.write_text(page, encoding="utf-8")


if __name__ == "__main__":
    main()
