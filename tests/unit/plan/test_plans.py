"""Plans for the published deployments: what is found, what it is beside them, and that it can be run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from baton.catalogue.model import load_model
from baton.perf.cost import total_s
from baton.plan.answer import answer, as_given, front, gains
from baton.plan.pool import Pool
from baton.plan.question import Question
from baton.plan.recipe_file import recipe_text, settings
from baton.plan.report import notes
from baton.plan.search import Candidate, bound_per_gpu
from baton.plan.setup import Setup, setup_of
from baton.recipe.deployment import load_deployment
from baton.recipe.recipe import Role, load_recipe

RECIPES = Path(__file__).parents[3] / "recipes"
HOPPER = Question(model=load_model("deepseek-r1"), accelerator="h200", num_gpus=32, isl=2000, osl=2000, tpot_s=0.08)
GB200 = replace(HOPPER, accelerator="gb200", num_gpus=16, tpot_s=0.06)


def setups(name: str) -> tuple[Setup, Setup]:
    deployment = load_deployment(RECIPES / name)
    return setup_of(deployment, Role.PREFILL), setup_of(deployment, Role.DECODE)


def best_of(question: Question, recipe: str) -> tuple[Candidate, Candidate]:
    found = answer(question, setups(recipe), all_settings=False)
    assert found.given is not None
    return found.candidates[0], found.given


@pytest.mark.parametrize(
    ("question", "recipe", "least"),
    [(HOPPER, "deepseek-r1-hopper-32gpu.yaml", 1.4), (GB200, "deepseek-r1-gb200-16gpu.yaml", 1.25)],
)
def test_the_split_alone_gives_more_tokens_of_the_same_gpus(question: Question, recipe: str, least: float) -> None:
    """At the same TPOT, on whole nodes, other settings equal, and below what any split could give."""
    best, given = best_of(question, recipe)
    node = int(question.gpu.gpus_per_node.value)
    assert best.num_gpus == given.num_gpus == question.num_gpus
    assert best.tokens_per_s_per_gpu >= least * given.tokens_per_s_per_gpu
    assert best.tokens_per_s_per_gpu <= bound_per_gpu(best) * 1.0001
    assert best.tpot_s <= question.tpot_s * 1.0001
    for mine, theirs in ((best.prefill.setup, given.prefill.setup), (best.decode.setup, given.decode.setup)):
        assert mine.num_gpus % node == 0
        sizes = {"dp_size": 0, "ep_size": 0, "num_redundant_experts": 0}
        assert replace(mine.layout, **sizes) == replace(theirs.layout, **sizes)
        assert (mine.max_num_seqs, mine.max_num_batched_tokens) == (theirs.max_num_seqs, theirs.max_num_batched_tokens)


def test_what_a_recipe_sets_is_what_is_predicted() -> None:
    prefill, decode = setups("deepseek-r1-hopper-32gpu.yaml")
    assert (prefill.layout.ep_size, prefill.nodes, prefill.max_num_batched_tokens) == (16, 2, 16384)
    assert (decode.layout.all2all, decode.layout.num_redundant_experts) == ("deepep_low_latency", 32)
    assert decode.layout.has_overlap
    assert decode.layout.has_eplb


@pytest.mark.parametrize("question", [HOPPER, GB200, replace(HOPPER, num_gpus=16), replace(GB200, accelerator="b200")])
def test_a_plan_is_a_recipe_that_resolves_to_what_was_planned(question: Question, tmp_path: Path) -> None:
    best = answer(question, None, all_settings=True).candidates[0]
    path = tmp_path / "plan.yaml"
    path.write_text(recipe_text(best, "planned"))
    deployment = load_deployment(path)
    for role, pool in ((Role.PREFILL, best.prefill), (Role.DECODE, best.decode)):
        written = setup_of(deployment, role)
        assert (written.layout, written.replicas, written.nodes) == (
            pool.setup.layout,
            pool.setup.replicas,
            pool.setup.nodes,
        )


def test_a_plan_from_a_recipe_changes_its_sizes_and_keeps_the_rest() -> None:
    recipe = RECIPES / "deepseek-r1-hopper-32gpu.yaml"
    best, _ = best_of(HOPPER, recipe.name)
    planned, given = load_recipe(recipe, settings(best)), load_recipe(recipe)
    assert planned.roles.decode.dp_size == best.decode.setup.layout.dp_size
    assert (planned.cluster, planned.eras) == (given.cluster, given.eras)
    assert planned.model == given.model.model_copy(update={"kv_dtype": given.model.dtype})


def test_what_does_not_fit_says_its_sum() -> None:
    found = answer(replace(HOPPER, num_gpus=8), None, all_settings=False)
    assert not found.candidates
    assert found.fastest is None
    sizes = [line.split(":")[0] for line in found.misfits]
    assert sizes == ["prefill 1 x EP4 on h200", "decode 1 x EP4 on h200"]
    assert all("routed experts 184.0 +" in line and "GB of 135.7 GB" in line for line in found.misfits)


def test_h100s_hold_it_only_with_fewer_spare_experts() -> None:
    """What the published recipe for 32 H100s cannot hold as it stands."""
    question = replace(HOPPER, accelerator="h100-80gb", osl=500)
    assert not answer(question, None, all_settings=False).candidates
    best = answer(question, None, all_settings=True).candidates[0]
    assert best.decode.setup.layout.num_redundant_experts == 0
    assert best.decode.room.left_bytes > 0


def test_a_rate_above_what_can_be_served_has_no_candidates_but_a_fastest() -> None:
    found = answer(replace(HOPPER, rate_per_s=1000), None, all_settings=False)
    assert found.candidates == ()
    assert found.fastest is not None
    assert 1 < found.fastest.rate_per_s < 1000


def test_rates_match_and_the_batch_follows_from_littles_law() -> None:
    best, _ = best_of(HOPPER, "deepseek-r1-hopper-32gpu.yaml")
    decode = best.decode.setup
    in_flight = best.batch * decode.layout.dp_size * decode.replicas
    assert in_flight == pytest.approx(best.rate_per_s * HOPPER.osl * best.tpot_s, rel=1e-3)
    assert best.rate_per_s <= best.prefill.prompts_per_s * best.prefill.setup.replicas * 1.0001


def test_the_front_trades_users_speed_for_tokens() -> None:
    points = front(HOPPER, None, all_settings=False)
    assert len(points) > 4
    rates, tpots = [p.tokens_per_s_per_gpu for p in points], [p.tpot_s for p in points]
    assert rates == sorted(rates)
    assert tpots == sorted(tpots)


def test_gains_of_other_settings_are_told_one_by_one() -> None:
    best, _ = best_of(HOPPER, "deepseek-r1-hopper-32gpu.yaml")
    found = dict(gains(best))
    without = found["decode: without DBO"]
    assert without is not None
    assert without < -0.1
    assert found["both: MTP, one draft, 85% accepted, no DBO"] is not None
    halved = found["both: KV cache in fp8"]
    assert halved is not None
    assert halved > 0


def test_all_settings_draft_where_steps_must_be_short_and_both_roles_share_drafts_and_kv() -> None:
    found = answer(replace(HOPPER, tpot_s=0.03), None, all_settings=True).candidates
    layouts = [(one.prefill.setup.layout, one.decode.setup.layout) for one in found]
    assert all((p.kv_dtype, p.mtp_tokens) == (d.kv_dtype, d.mtp_tokens) for p, d in layouts)
    assert {d.kv_dtype for _, d in layouts} == {"bfloat16", "fp8"}
    assert not any(layout.mtp_tokens and layout.has_overlap for pair in layouts for layout in pair)
    assert layouts[0][1].mtp_tokens == 1
    rounded, drafted = notes(found[:1], ["1"])
    assert "KV cache in fp8 (1)" in rounded
    assert "MTP (1): 85%" in drafted


def test_a_checkpoint_without_draft_layers_is_not_planned_with_drafts() -> None:
    found = answer(replace(GB200, tpot_s=0.03), None, all_settings=True).candidates
    assert not any(one.decode.setup.layout.mtp_tokens for one in found)
    assert not any("MTP" in name for name, _ in gains(found[0]))


def test_draft_layers_take_room_and_prefill_time() -> None:
    setup = setups("deepseek-r1-hopper-32gpu.yaml")[0]
    plain = Pool(HOPPER, replace(setup, layout=replace(setup.layout, has_overlap=False)))
    drafts = Pool(HOPPER, replace(setup, layout=replace(plain.setup.layout, mtp_tokens=1)))
    assert drafts.room.left_bytes < plain.room.left_bytes
    assert drafts.room.kv_bytes_per_token == pytest.approx(plain.room.kv_bytes_per_token * 62 / 61)
    assert 1 < drafts.prefill_step_s(8192) / plain.prefill_step_s(8192) < 1.03


def test_what_a_plan_leaves_out_is_taken_out_of_the_recipe() -> None:
    recipe = RECIPES / "deepseek-r1-hopper-32gpu.yaml"
    best = answer(replace(HOPPER, tpot_s=0.03), setups(recipe.name), all_settings=True).candidates[0]
    written = load_deployment(recipe, settings(best))
    for pool in (best.prefill, best.decode):
        assert setup_of(written, pool.setup.role).layout == pool.setup.layout


def test_cached_prompts_make_prefill_cheaper() -> None:
    pool = Pool(HOPPER, setups("deepseek-r1-hopper-32gpu.yaml")[0])
    cached = Pool(replace(HOPPER, hit_rate=0.5), pool.setup)
    assert 1.5 * pool.prompts_per_s < cached.prompts_per_s < 2.1 * pool.prompts_per_s


def test_a_layout_as_given_that_needs_more_gpus_than_asked_is_no_candidate() -> None:
    assert as_given(replace(HOPPER, num_gpus=16), setups("deepseek-r1-hopper-32gpu.yaml")) is None


def test_ledgers_of_a_pool_sum_to_its_step() -> None:
    best, _ = best_of(HOPPER, "deepseek-r1-hopper-32gpu.yaml")
    assert total_s(best.decode.decode_costs(best.batch)) == pytest.approx(
        best.decode.decode_step_s(best.batch), rel=0.02
    )
