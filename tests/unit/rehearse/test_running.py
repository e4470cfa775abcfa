"""The probe's process and what becomes of it: events handed on, ends that are none, words for what failed."""

from __future__ import annotations

import stat
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from baton.catalogue.calibration import Calibration
from baton.recipe.deployment import load_deployment
from baton.recipe.recipe import Role
from baton.rehearse.diagnosis import diagnose, slow_start
from baton.rehearse.one_rank import one_rank
from baton.rehearse.predicted import predictor
from baton.rehearse.result import calibration
from baton.rehearse.run import run

RECIPES = Path(__file__).parents[3] / "recipes"
POINT = {
    "event": "point",
    "role": "decode",
    "batch": 128,
    "context": 2048,
    "mean_context": 2060.0,
    "step_s": 0.04,
    "p25_s": 0.039,
    "p75_s": 0.041,
    "n": 16,
    "first_s": 0.5,
    "tokens_a_step": 128.0,
}


def fake_python(folder: Path, body: str) -> str:
    """A program that stands where the engine's Python would: it gets the probe and the job."""
    path = folder / "python"
    path.write_text(
        f"#!{sys.executable}\nimport json, sys, time, os\njob = json.load(open(sys.argv[2]))\n"
        f"out = open(job['out'], 'a', buffering=1)\n{body}\n"
    )
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return str(path)


def ran(tmp_path: Path, body: str, timeout_s: float = 20) -> tuple[list[dict[str, Any]], str]:
    seen: list[dict[str, Any]] = []
    events, log = run(
        fake_python(tmp_path, body), {"points": []}, {}, tmp_path, timeout_s=timeout_s, on_event=seen.append
    )
    assert events[: len(seen)] == seen
    return events, log


def test_events_are_handed_on_in_order(tmp_path: Path) -> None:
    events, log = ran(tmp_path, 'print(\'hello\'); out.write(\'{"event": "up"}\\n{"event": "end"}\\n\')')
    assert [event["event"] for event in events] == ["up", "end"]
    assert log == "hello\n"


def test_a_process_that_dies_leaves_a_failure_with_its_code(tmp_path: Path) -> None:
    events, log = ran(tmp_path, 'print(\'last words\'); out.write(\'{"event": "up"}\\n{"event"\'); os._exit(7)')
    assert events[-1] == {"event": "failed", "phase": "died", "code": 7, "message": ""}
    assert diagnose(events[-1], log, "decode") == "the engine's process ended with 7; the log's last line: last words"


def test_a_process_that_hangs_is_ended_with_its_children(tmp_path: Path) -> None:
    body = "import subprocess; c = subprocess.Popen(['sleep', '60']); print(c.pid, flush=True); time.sleep(60)"
    events, log = ran(tmp_path, body, timeout_s=1)
    assert events[-1]["phase"] == "deadline"
    child = int(log.split()[0])
    assert not psutil.pid_exists(child) or psutil.Process(child).status() == psutil.STATUS_ZOMBIE
    assert "nothing more was measured within --timeout" in diagnose(events[-1], log, "decode")


def test_an_interrupt_ends_the_process(tmp_path: Path) -> None:
    def interrupt(event: dict[str, Any]) -> None:
        pids.append(event["pid"])
        raise KeyboardInterrupt

    pids: list[int] = []
    python = fake_python(tmp_path, "out.write(json.dumps({'event': 'up', 'pid': os.getpid()}) + '\\n'); time.sleep(60)")
    with pytest.raises(KeyboardInterrupt):
        run(python, {"points": []}, {}, tmp_path, timeout_s=20, on_event=interrupt)
    assert not psutil.pid_exists(pids[0])


@pytest.mark.parametrize(
    ("failed", "log", "words"),
    [
        (
            {"phase": "flags"},
            "api: error: unrecognized arguments: --swap-space 4",
            "--swap-space: this engine has no such",
        ),
        ({"phase": "flags"}, "error: argument --block-size: invalid choice: '7'", "--block-size: invalid choice: '7'"),
        (
            {"phase": "start", "message": "CUDA out of memory. Tried"},
            "",
            "lower gpu-memory-utilization or max-num-batched",
        ),
        ({"phase": "step", "message": "CUDA out of memory. Tried"}, "", "out of memory in a step"),
        ({"phase": "start", "message": "3.0 GiB KV cache is needed, which is larger"}, "", "no room for the KV of one"),
        ({"phase": "flags", "kind": "ModuleNotFoundError", "message": "No module named 'vllm'"}, "", "--python"),
        ({"phase": "step", "kind": "RuntimeError", "message": "odd\nmore"}, "", "RuntimeError: odd"),
    ],
)
def test_failures_say_which_setting_to_change(failed: dict[str, Any], log: str, words: str) -> None:
    assert words in diagnose(failed, log, "decode")


def test_a_first_step_that_compiled_kernels_is_noted() -> None:
    assert slow_start(POINT) is None
    assert "kernels were compiled" in str(slow_start({**POINT, "first_s": 30.0}))


def test_measured_points_become_a_calibration_with_its_conditions(tmp_path: Path) -> None:
    deployment = load_deployment(RECIPES / "deepseek-r1-hopper-32gpu.yaml")
    rank = one_rank(deployment, Role.DECODE, tmp_path)
    events = [{"event": "starting", "gpu": "NVIDIA H200", "vllm": "0.22.1", "torch": "2.11"}, {"event": "up"}, POINT]
    log = "Using FLASH_ATTN_MLA attention backend out of\nUsing DEEPGEMM Fp8 MoE backend out of"
    found = calibration(deployment, rank, events, log, date="2026-11-24", routing="balanced", num_layers=61)
    assert isinstance(found, Calibration)
    assert (found.attention_backend, found.moe_backend) == ("FLASH_ATTN_MLA", "DEEPGEMM")
    assert (found.ep_size, found.experts_held, found.weight_dtype, found.kv_dtype) == (16, 18, "fp8", "bfloat16")
    assert found.points[0].tokens_per_s == 3200
    assert calibration(deployment, rank, events[:2], log, date="", routing="", num_layers=61) is None


def test_a_point_stands_beside_its_prediction_where_there_is_one() -> None:
    hopper, tiny = (load_deployment(RECIPES / f"{name}.yaml") for name in ("deepseek-r1-hopper-32gpu", "tiny-local-ep"))
    predicted = predictor(hopper, Role.DECODE, 16)(POINT)
    assert predicted == pytest.approx(0.038, rel=0.1), "what the H200 took for this point was 38.3 ms"
    assert predictor(tiny, Role.DECODE, 8)(POINT) is None
