"""A recipe's page: it follows the recipe, the release and the catalogue, and no value breaks out of its tables."""

from __future__ import annotations

import re
from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baton.catalogue import history, published
from baton.catalogue.engine import load_engine, versions
from baton.perf.memory import Term
from baton.recipe.deployment import resolve
from baton.recipe.document import parse
from baton.recipe.overrides import override
from baton.recipe.recipe import Recipe, Role
from baton.render.markdown import code, plain, table
from baton.render.overview import Room
from baton.render.settings import page

RECIPES = Path(__file__).parents[3] / "recipes"
PUBLISHED = sorted(
    path.stem for path in RECIPES.glob("*.yaml") if published.of_recipe(path.read_text().split("name: ")[1].split()[0])
)
ALL = sorted(path.stem for path in RECIPES.glob("*.yaml"))
HOPPER, GB200 = "deepseek-r1-hopper-32gpu", "deepseek-r1-gb200-16gpu"


def page_of(text: str, *changes: str) -> str:
    recipe = parse(override(text, changes, source="x"), Recipe, source="x")
    return page(recipe, resolve(recipe, RECIPES), {})


@cache
def fresh(stem: str, *changes: str) -> str:
    return page_of((RECIPES / f"{stem}.yaml").read_text(), *changes)


def cells(line: str) -> list[str]:
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def row(text: str, name: str) -> list[str]:
    """The cells of a setting's first row."""
    return next(cells(line) for line in text.splitlines() if line.startswith(f"| `{name}` |"))


def rows(text: str, columns: int) -> list[list[str]]:
    found = [cells(line) for line in text.splitlines() if line.startswith("| `")]
    return [line for line in found if len(line) == columns]


def test_published_data_belongs_to_the_big_recipes() -> None:
    assert {HOPPER, GB200, "deepseek-r1-gb200-2p4-1d8"} == set(PUBLISHED)


@pytest.mark.parametrize("stem", PUBLISHED)
def test_every_published_setting_has_its_row(stem: str) -> None:
    text = fresh(stem)
    name = parse((RECIPES / f"{stem}.yaml").read_text(), Recipe, source="x").name
    wanted = [row.name for manifest in published.of_recipe(name) for row in manifest.rows]
    assert sorted(f"`{name}`" for name in wanted) == sorted(line[0] for line in rows(text, 7))


@pytest.mark.parametrize("stem", PUBLISHED)
def test_whatever_differs_has_a_reason(stem: str) -> None:
    for name, theirs, does, exists, _, ours, why in rows(fresh(stem), 7):
        assert does, name
        assert exists, name
        if theirs.split(" (in ")[0].lower() != ours.lower():
            assert why, f"{name}: {theirs} is published, {ours} is set"


@pytest.mark.parametrize("stem", ALL)
def test_whatever_we_set_is_explained(stem: str) -> None:
    assert "own help" not in fresh(stem)


@pytest.mark.parametrize("stem", PUBLISHED)
def test_what_the_catalogue_has_ever_had_shows_its_releases(stem: str) -> None:
    vllm = [load_engine("vllm", version) for version in versions("vllm")]
    for line in rows(fresh(stem), 7):
        name = line[0].strip("`")
        flag, _, path = name.partition(".")
        if not flag.startswith("--"):
            lives = history.of_env(vllm, name)
        else:
            lives = history.of_key(vllm, flag, path) if path else history.of_flag(vllm, flag)
        if lives:
            assert lives[0].first in line[3]
            assert "gone in" in line[3] if lives[-1].until else "now" in line[3] or "since" in line[3]


def test_a_variable_that_is_gone_says_what_replaces_it() -> None:
    chunk = row(fresh(HOPPER), "VLLM_MOE_DP_CHUNK_SIZE")
    assert chunk[1] == "decode `384`"
    assert chunk[3] == "vLLM 0.11.0 to 0.19.1, gone in 0.20.2"
    assert chunk[4].startswith("nothing: Chunking over data-parallel ranks is gone; --max-num-batched-tokens")
    assert chunk[5:] == ["-", "0.33.0 does not have it."]
    flashinfer = row(fresh(GB200), "VLLM_USE_FLASHINFER_MOE_FP4")
    assert flashinfer[4].startswith("`--moe-backend`: ")


def test_two_lives_and_no_life_are_said() -> None:
    text = fresh("deepseek-r1-gb200-2p4-1d8")
    assert row(text, "VLLM_EP_USE_SBO")[3].startswith("no vLLM of the catalogue (")
    assert row(fresh(HOPPER), "--is-prefill-worker")[3] == "Dynamo 0.8.0 to 1.2.1, gone in 1.4.2"


def test_taking_a_setting_out_changes_the_page() -> None:
    text = (RECIPES / f"{HOPPER}.yaml").read_text()
    without = "".join(line for line in text.splitlines(keepends=True) if "dbo-decode-token-threshold" not in line)
    assert without != text
    before, after = (
        row(page_of(text), "--dbo-decode-token-threshold"),
        row(page_of(without), "--dbo-decode-token-threshold"),
    )
    assert before[5:] == ["`32`", ""]
    assert after[:5] == before[:5]
    assert after[5] == "-"
    assert after[6]


def test_another_value_changes_the_page() -> None:
    assert row(fresh(HOPPER), "sharedMemory.size")[5] == "`80Gi`"
    assert row(fresh(HOPPER, "cluster.shared_memory=96Gi"), "sharedMemory.size")[5] == "`96Gi`"
    assert row(fresh(HOPPER, "roles.decode.nodes=4", "roles.decode.dp_size=32"), "multinode.nodeCount")[5] == (
        "prefill `2`, decode `4`"
    )
    assert "| decode | 1 | 4 | 8 | 32 | 32 |" in fresh(HOPPER, "roles.decode.nodes=4", "roles.decode.dp_size=32")


def test_another_release_changes_the_page() -> None:
    """Its eras are in force, and what it has is set again."""
    old = fresh(HOPPER, "engine.version=0.14.1")
    assert "- Engine: vLLM 0.14.1" in old
    assert row(old, "VLLM_MOE_DP_CHUNK_SIZE")[5:] == ["decode `384`", ""]
    eras = {line[0]: line[1] for line in rows(old, 5)}
    assert eras["`vllm-0.11..0.14`"] == "yes"
    assert all(line[1] == "no" for line in rows(fresh(HOPPER), 5))
    assert "`--enable-scale-out` | `on`" in fresh(HOPPER)
    assert "`--enable-scale-out` | `on`" not in old


def test_a_release_before_a_setting_says_so() -> None:
    assert row(fresh(HOPPER, "engine.version=0.11.0"), "--all2all-backend")[5:] == ["-", "0.11.0 does not have it."]


def test_offloading_is_an_option_of_gb200() -> None:
    assert "--set engine.flags.cpu-offload-gb=N" in row(fresh(GB200), "--cpu-offload-gb")[6]
    assert row(fresh(GB200, "engine.flags.cpu-offload-gb=32"), "--cpu-offload-gb")[5] == "`32`"


def test_a_recipe_that_nobody_published_has_its_own_settings() -> None:
    text = fresh("tiny-local")
    assert "## Published" not in text
    assert "\n## Settings\n" in text
    assert "| `--model` | `../models/tiny-r1/checkpoint` |" in text
    assert "| `--attention-backend` | `CPU_MLA` |" in text
    assert str(RECIPES.parent) not in text


def test_run_on_is_said_first() -> None:
    assert "- Has been run on: nothing yet" in fresh(HOPPER)
    assert "- Has been run on: 32 H200, by hand" in fresh(HOPPER, 'run_on=["32 H200, by hand"]')


def test_memory_adds_up() -> None:
    recipe = parse((RECIPES / f"{HOPPER}.yaml").read_text(), Recipe, source="x")
    room = Room(
        terms=(Term("weights", 45e9, "a | b"), Term("on the host", -5e9, "")),
        gpu_bytes=100e9,
        utilization=0.9,
        kv_bytes=1_000_000,
        kv_dtype="fp8",
        max_model_len=1000,
        not_counted="not counted: CUDA",
    )
    text = page(recipe, resolve(recipe, RECIPES), {Role.DECODE: room})
    assert "| budget | 90.0 | 0.9 of the 100.0 GB of h200 |" in text
    assert r"| weights | -45.0 | a \| b |" in text
    assert "| on the host | +5.0 |" in text
    assert "| **left for KV** | **50.0** | 50,000 tokens of 1,000,000 bytes (fp8), 50 sequences of 1,000 |" in text
    assert text.count("Not summed:") == 1
    full = replace(room, terms=(Term("weights", 95e9, ""),))
    assert "**-5.0** | 0 tokens" in page(recipe, resolve(recipe, RECIPES), {Role.DECODE: full})


def test_every_table_is_whole() -> None:
    """Rows have as many cells as their header, in every page."""
    for stem in ALL:
        lines, header = fresh(stem).splitlines(), 0
        for before, line in zip(["", *lines], lines, strict=False):
            if line.startswith("|"):
                header = header if before.startswith("|") else len(cells(line))
                assert len(cells(line)) == header, line


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("a|b", r"`a\|b`"),
        ("a\nb", "`a b`"),
        ("", '`""`'),
        ("`x`", "`` `x` ``"),
        ("a``b", "```a``b```"),
    ],
)
def test_values_stay_in_their_cell(value: str, shown: str) -> None:
    assert code(value) == shown


@given(st.text(max_size=30), st.text(max_size=30))
@settings(max_examples=60, deadline=None)
def test_nothing_breaks_a_table(value: str, words: str) -> None:
    lines = table(("A", "B"), [(code(value), plain(words))])
    assert len(lines) == 3
    assert all("\n" not in line and len(cells(line)) == 2 for line in lines)


def test_what_a_person_wrote_is_text() -> None:
    assert plain("*a* <b>\n_c_ [d](e) snake_case") == r"\*a\* \<b\> \_c\_ \[d\](e) snake_case"
    assert plain("# 1") == r"\# 1"
    assert plain("vllm#1") == "vllm#1"
    assert r"\<script\>" in fresh(HOPPER, 'description="<script>"')


def test_the_page_says_what_the_gateway_is_told_and_where_that_does_not_apply() -> None:
    text = fresh(HOPPER)
    part = text.partition("\n## Gateway\n")[2].partition("\n## ")[0]
    assert "Dynamo's targets have Dynamo's frontend instead: none of these applies there, API keys included." in part
    assert [row(part, name)[1] for name in ("api_keys", "max_queued", "exact_prefixes")] == [
        "none",
        "`1024`",
        "`false`",
    ]
    both = fresh(HOPPER, "gateway.api_keys={secret: s, file: keys.yaml}", "gateway.max_queued=7")
    assert row(both, "api_keys")[1] == "`s/api-keys.yaml` in a cluster, `keys.yaml` on one machine"
    assert row(both, "max_queued")[1] == "`7`"
    assert row(fresh(HOPPER, "gateway.api_keys={file: keys.yaml}"), "api_keys")[1] == "`keys.yaml` on one machine"
