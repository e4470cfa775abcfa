"""`baton plan` as a person runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from baton.catalogue.model import load_model
from baton.plan.answer import answer, as_given
from baton.plan.question import Question
from baton.plan.recipe_file import recipe_text, settings
from baton.plan.setup import MTP_ACCEPTANCE
from baton.recipe.overrides import read_text

RECIPES = Path(__file__).parents[3] / "recipes"
HOPPER, GB200 = RECIPES / "deepseek-r1-hopper-32gpu.yaml", RECIPES / "deepseek-r1-gb200-16gpu.yaml"
CALIBRATION = Path(__file__).parents[3] / "src/baton/catalogue/calibration"
ASK = ["--isl", "2000", "--osl", "2000", "--tpot", "80ms"]


def baton(*args: str | Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "baton", *map(str, args)]
    env = {**os.environ, "NO_COLOR": "1"}
    return subprocess.run(command, capture_output=True, text=True, check=False, env=env, encoding="utf-8")


def test_a_recipe_is_answered_with_a_table_its_limits_and_gains() -> None:
    done = baton("plan", HOPPER, *ASK)
    assert (done.returncode, done.stderr) == (0, "")
    for part in ("as given  1 x EP16 + 1 x EP16", "1         1 x EP8 + 1 x EP24", "x as given", "decode is limited by"):
        assert part in done.stdout
    assert "decode: without DBO" in done.stdout


def test_the_written_recipe_passes_baton_check(tmp_path: Path) -> None:
    new, changed = tmp_path / "new.yaml", tmp_path / "changed.yaml"
    assert baton("plan", "--model", "deepseek-r1", "--gpus", "16xGB200", *ASK, "--write", new).returncode == 0
    assert baton("plan", HOPPER, *ASK, "--all-settings", "--write", changed).returncode == 0
    checked = baton("check", new, changed)
    assert checked.returncode == 0, checked.stdout
    assert "no faults found in 2 files" in checked.stdout


@pytest.mark.parametrize("kv_dtype", ["bfloat16", "fp8"])
@pytest.mark.parametrize("num_drafts", [0, 1])
def test_a_written_recipe_passes_baton_check_with_each_format(tmp_path: Path, kv_dtype: str, num_drafts: int) -> None:
    question = Question(
        model=load_model("deepseek-r1"), accelerator="h200", num_gpus=32, isl=2000, osl=2000, tpot_s=0.08
    )
    found = answer(question, None, all_settings=True).candidates[0]
    pair = []
    for pool in (found.prefill, found.decode):
        drafts = {"mtp_tokens": num_drafts, "mtp_acceptance": MTP_ACCEPTANCE * num_drafts}
        overlap = {"has_overlap": False} if num_drafts else {}
        layout = replace(pool.setup.layout, kv_dtype=kv_dtype, **drafts, **overlap)
        pair.append(replace(pool.setup, layout=layout))
    candidate = as_given(question, (pair[0], pair[1]))
    assert candidate is not None
    new, changed = tmp_path / "new.yaml", tmp_path / "changed.yaml"
    new.write_text(recipe_text(candidate, "planned"))
    changed.write_text(read_text(HOPPER, settings(candidate)))
    assert new.read_text().count("num_speculative_tokens: 1") == 2 * num_drafts
    assert f"kv_dtype: {kv_dtype}" in new.read_text()
    checked = baton("check", new, changed)
    assert "no faults found in 2 files" in checked.stdout, checked.stdout


def test_json_has_ledgers_that_sum_to_the_steps() -> None:
    found = json.loads(baton("plan", GB200, *ASK, "--json").stdout)
    best = found["best"][0]
    assert sum(cost["time_s"] for cost in found["prefill_step"]) == pytest.approx(best["prefill_step_s"])
    assert sum(cost["time_s"] for cost in found["decode_step"]) == pytest.approx(best["tpot_s"], rel=0.02)
    low, high = best["output_tokens_per_s_per_gpu_interval"]
    assert low < best["output_tokens_per_s_per_gpu"] < high
    assert best["output_tokens_per_s_per_gpu"] > found["as_given"]["output_tokens_per_s_per_gpu"]


def test_explain_prints_every_term_with_its_reason() -> None:
    done = baton("plan", HOPPER, *ASK, "--explain")
    assert "all2all combine" in done.stdout
    assert "DeepEP low-latency" in done.stdout
    assert "100.0%" in done.stdout


def test_a_picture_is_a_png(tmp_path: Path) -> None:
    path = tmp_path / "front.png"
    assert baton("plan", HOPPER, *ASK, "--picture", path).returncode == 0
    assert path.read_bytes().startswith(b"\x89PNG")
    failed = baton("plan", HOPPER, *ASK, "--picture", tmp_path / "no" / "front.png")
    assert failed.returncode == 2
    assert "cannot write it" in failed.stderr


def test_two_recipes_are_compared_term_by_term() -> None:
    done = baton("plan", HOPPER, "--compare", GB200, *ASK)
    assert done.returncode == 0, done.stderr
    assert "prefill, microseconds a token of a GPU" in done.stdout
    assert "routed experts, up" in done.stdout


def test_a_trace_is_a_workload(tmp_path: Path) -> None:
    trace = tmp_path / "trace.jsonl"
    trace.write_text('{"input_length": 3000, "output_length": 300}\n' * 3)
    done = baton("plan", HOPPER, "--trace", trace)
    assert "3000 tokens in, 300 out" in done.stdout


@pytest.mark.parametrize(
    ("args", "code", "message"),
    [
        ([], 2, "give a RECIPE, or --model and --gpus"),
        (["--model", "deepseek-r1", "--gpus", "32xH200"], 2, "give --isl and --osl"),
        (["--model", "gpt-2", "--gpus", "32xH200", *ASK], 2, "'gpt-2' is not in the catalogue's models"),
        (["--model", "deepseek-r1", "--gpus", "32", *ASK], 2, "give a number and a GPU"),
        (["--model", "deepseek-r1", "--gpus", "8xH200", *ASK], 1, "no layout fits these GPUs"),
        ([HOPPER, *ASK, "--percentile", "42"], 2, "--percentile 42: give 50, 90 or 99"),
        ([HOPPER, *ASK, "--ttft", "soon"], 2, "--ttft 'soon': give a duration"),
        ([HOPPER, *ASK, "--max-goodput"], 2, "give --ttft, and no --rate"),
        ([HOPPER, *ASK, "--rate", "900"], 1, "the best layout serves"),
        ([HOPPER, *ASK, "--tpot", "1ms"], 1, "no layout fits these GPUs within --tpot"),
        ([RECIPES / "tiny-local.yaml", *ASK], 2, "hardware.accelerator is cpu"),
        (["--model", "deepseek-r1", "--gpus", "32xH200", *ASK, "--compare", HOPPER], 2, "--compare needs two recipes"),
    ],
)
def test_what_cannot_be_answered_says_why(args: list[str | Path], code: int, message: str) -> None:
    done = baton("plan", *args)
    assert done.returncode == code
    assert message in done.stderr


def test_a_plan_reckons_with_what_was_rehearsed(tmp_path: Path) -> None:
    mine = tmp_path / "mine.json"
    found = json.loads((CALIBRATION / "h200-deepseek-r1-ep16.json").read_bytes())
    for point in found["points"]:
        point["step_s"] *= 1.2
    mine.write_text(json.dumps(found), encoding="utf-8")
    ask = ["plan", HOPPER, *ASK, "--json"]
    plain, slower = baton(*ask), baton(*ask, "--calibration", mine)
    assert "14 decode points took 1." in slower.stderr
    assert "prefill points took 1." in slower.stderr
    assert json.loads(slower.stdout)["rehearsed"]["decode"] == pytest.approx(1.2, abs=0.06)
    before, after = (json.loads(done.stdout)["best"][0]["output_tokens_per_s_per_gpu"] for done in (plain, slower))
    assert 0.75 * before < after < 0.97 * before


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"accelerator": "gb200"}, "its accelerator is gb200, this plan needs h200"),
        ({"model": "Qwen/Qwen3-32B"}, "its model is qwen3-32b, this plan needs deepseek-r1"),
        ({"num_layers": 8}, "its num_layers is 8, this plan needs 61"),
        ({"routing": "zipf 1"}, "its routing is zipf 1, this plan needs balanced"),
        ({"has_all2all": True}, "its has_all2all is True, this plan needs False"),
        ({"points": []}, "it needs points"),
        ({"points": 3}, "not what `baton rehearse --write` makes"),
    ],
)
def test_a_calibration_that_does_not_belong_is_refused(tmp_path: Path, change: dict[str, object], said: str) -> None:
    mine = tmp_path / "mine.json"
    found = json.loads((CALIBRATION / "h200-deepseek-r1-ep16.json").read_bytes())
    mine.write_text(json.dumps({**found, **change}), encoding="utf-8")
    done = baton("plan", HOPPER, *ASK, "--calibration", mine)
    assert (done.returncode, done.stdout) == (2, "")
    assert str(mine) in done.stderr.replace("\n", "")
    assert said in done.stderr


def test_what_changes_answers_is_said_to_programs_too() -> None:
    for gpus, said in (("16xGB200", 1), ("32xH200", 0)):
        done = baton("plan", "--model", "deepseek-r1", "--gpus", gpus, *ASK, "--json")
        notes = json.loads(done.stdout)["notes"]
        assert len(notes) == said, notes
        assert all(note.startswith("KV cache in fp8 (1, ") for note in notes)
