"""One rank out of a deployment: its share of the experts, the recipe's flags, nothing of other ranks."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from baton.base.errors import ConfigError
from baton.recipe.deployment import Deployment, load_deployment
from baton.recipe.recipe import Role
from baton.rehearse.grid import points
from baton.rehearse.one_rank import one_rank

RECIPES = Path(__file__).parents[3] / "recipes"


def hopper(*settings: str) -> Deployment:
    return load_deployment(RECIPES / "deepseek-r1-hopper-32gpu.yaml", settings)


def test_a_rank_of_ep16_holds_a_sixteenth_and_the_flags_of_its_role(tmp_path: Path) -> None:
    rank = one_rank(hopper(), Role.DECODE, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    assert rank.experts_held == config["n_routed_experts"] == (256 + 32) // 16
    assert (config["num_experts_per_tok"], config["num_hidden_layers"], config["hidden_size"]) == (8, 61, 7168)
    assert config["quantization_config"]["quant_method"] == "fp8"
    argv = list(rank.argv)
    assert argv[argv.index("--max-num-seqs") + 1] == "256"
    assert argv[argv.index("--data-parallel-size") + 1] == "1"
    assert "DecodeBenchConnector" in argv[argv.index("--kv-transfer-config") + 1]
    assert set(rank.left_out) == {
        "enable-eplb",
        "eplb-config",
        "enable-dbo",
        "dbo-decode-token-threshold",
        "all2all-backend",
    }
    assert not [
        word for word in argv if word in ("--port", "--host", "--enable-expert-parallel", "--served-model-name")
    ]


def test_prefill_computes_its_prompts_and_needs_no_connector(tmp_path: Path) -> None:
    argv = one_rank(hopper(), Role.PREFILL, tmp_path).argv
    assert "--kv-transfer-config" not in argv
    assert argv[argv.index("--max-num-batched-tokens") + 1] == "16384"


def test_other_ranks_may_be_rehearsed(tmp_path: Path) -> None:
    rank = one_rank(hopper(), Role.DECODE, tmp_path, ep_size=32)
    config = json.loads((tmp_path / "config.json").read_text())
    assert (rank.ep_size, rank.experts_held) == (32, 9)
    assert (config["n_group"], config["topk_group"]) == (1, 1), "nine experts are no eight groups"


def test_tensor_parallelism_needs_more_gpus_than_one(tmp_path: Path) -> None:
    recipe = hopper("roles.decode.tp_size=2", "roles.decode.dp_size=8")
    with pytest.raises(ConfigError, match=r"roles.decode.tp_size 2: one rank needs 2 GPUs"):
        one_rank(recipe, Role.DECODE, tmp_path)


def test_experts_that_do_not_divide_or_are_too_few_are_errors(tmp_path: Path) -> None:
    odd = hopper("roles.decode.flags.eplb-config={num_redundant_experts: 7}")
    with pytest.raises(ConfigError, match=r"256 \+ 7 redundant experts do not divide over 16 ranks"):
        one_rank(odd, Role.DECODE, tmp_path)
    with pytest.raises(ConfigError, match="holds 4 experts, fewer than the 8"):
        one_rank(hopper(), Role.DECODE, tmp_path, ep_size=72)


def test_a_model_without_config_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"put the checkpoint's config.json there"):
        one_rank(hopper("model.name=acme/new", "model.repo=acme/new", "model.path=/nowhere"), Role.DECODE, tmp_path)


def test_points_follow_the_engines_limits_or_what_is_asked() -> None:
    decode, prefill = (hopper().of_role(role)[0] for role in (Role.DECODE, Role.PREFILL))
    usual = points(decode, 16384, batches=[], lengths=[], chunks=[], steps=16)
    assert max(point["batch"] for point in usual) == 256
    assert {point["context"] for point in usual} == {1024, 2048, 4096, 8192}
    chunks = {point["chunk"] for point in points(prefill, 16384, batches=[], lengths=[1024], chunks=[], steps=3)}
    assert chunks == {8192, 16384}
    asked = points(decode, 16384, batches=[3], lengths=[50], chunks=[], steps=5)
    assert asked == [{"role": "decode", "batch": 3, "context": 50, "warm_steps": 4, "steps": 5}]
    short = points(decode, 512, batches=[1], lengths=[], chunks=[], steps=4)
    assert all(point["context"] < 512 for point in short)
