"""The words behind `python3 -m dynamo.vllm`, for every release that the catalogue knows."""

from dataclasses import replace
from itertools import pairwise

import pytest
from support.graphs import GB200, HOPPER, OURS, SMALL_PREFILL, deployment, value

from baton.base.errors import ConfigError
from baton.catalogue.engine import embedding, load_engine, version_key, versions
from baton.engine.command import Place
from baton.engine.dynamo import (
    FRONTEND,
    WORKER,
    DynamoCommand,
    frontend_args,
    routes_by_kv,
    vllm_of,
    worker_command,
)
from baton.recipe.deployment import Deployment
from baton.recipe.recipe import Role

RELEASES = versions(WORKER)
PLACE = Place(host="0.0.0.0", http_port=8000, nixl_port=5600, dp_address="", dp_rpc_port=13345)


def of_release(release: str, stem: str = HOPPER) -> Deployment:
    return deployment(stem, f"cluster.dynamo.version={release}")


def command(of: Deployment, role: Role) -> DynamoCommand:
    return worker_command(of, of.of_role(role)[0], PLACE)


def with_flags(of: Deployment, role: Role, **flags: object) -> Deployment:
    engines = tuple(
        replace(each, flags={**each.flags, **{name.replace("_", "-"): value for name, value in flags.items()}})
        if each.role is role
        else each
        for each in of.engines
    )
    return replace(of, engines=engines)  # type: ignore[type-var]


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("stem", OURS)
@pytest.mark.parametrize("release", RELEASES)
def test_a_release_takes_every_flag_it_is_given(release: str, stem: str, role: Role) -> None:
    inner = vllm_of(release)
    nearest = max(
        (each for each in versions("vllm") if version_key(each)[:2] == version_key(inner)[:2]), key=version_key
    )
    taken = embedding(load_engine(WORKER, release), load_engine("vllm", nearest))
    flags = [word for word in command(of_release(release, stem), role).args if word.startswith("--")]
    assert [flag for flag in flags if taken.flag(flag) is None] == []
    assert [flag for flag in flags if taken.flag(flag).is_abbreviated] == []  # type: ignore[union-attr]
    assert len(flags) == len(set(flags))


@pytest.mark.parametrize("release", RELEASES)
def test_both_roles_are_said_as_the_release_says_them(release: str) -> None:
    for role in Role:
        args = command(of_release(release), role).args
        if version_key(release) >= (1, 0, 2):
            assert value(args, "--disaggregation-mode") == role
            assert "--connector" not in args
        else:
            assert f"--is-{role}-worker" in args
            assert value(args, "--connector") == "none"


def test_without_a_connector_of_its_own_an_old_worker_keeps_scheduler_and_worker_apart() -> None:
    old = of_release("0.9.1")
    assert value(command(old, Role.DECODE).args, "--distributed-executor-backend") == "mp"
    by_hand = with_flags(old, Role.DECODE, distributed_executor_backend="ray")
    assert value(command(by_hand, Role.DECODE).args, "--distributed-executor-backend") == "ray"


def test_over_several_nodes_the_operators_flags_are_not_given_and_the_sizes_come_apart() -> None:
    for role in Role:
        args = command(deployment(HOPPER), role).args
        assert value(args, "--data-parallel-size") == "16"
        assert value(args, "--tensor-parallel-size") == "1"
        assert "--data-parallel-hybrid-lb" in args
        assert not any("=" in word for word in args if word.startswith("--"))
        for part in ("size-local", "start-rank", "address", "rpc-port"):
            assert f"--data-parallel-{part}" not in args


def test_on_one_node_all_ranks_are_one_workers() -> None:
    args = command(deployment(SMALL_PREFILL), Role.PREFILL).args
    assert [word for word in args if word.startswith("--data-parallel")] == ["--data-parallel-size"]
    assert value(args, "--data-parallel-size") == "4"


@pytest.mark.parametrize(
    ("stem", "balancing"), [(HOPPER, "internal"), (HOPPER, "external"), (SMALL_PREFILL, "external")]
)
def test_what_dynamo_cannot_balance_is_refused(stem: str, balancing: str) -> None:
    given = deployment(stem, f"roles.prefill.load_balancing={balancing}")
    with pytest.raises(ConfigError, match=rf"roles\.prefill\.load_balancing: got {balancing}.*leave it out"):
        command(given, Role.PREFILL)


def test_flags_of_vllms_own_server_are_left_out_and_named_with_the_reason() -> None:
    found = command(deployment(HOPPER), Role.PREFILL)
    for flag in ("--api-server-count", "--enable-scale-out", "--disable-uvicorn-access-log"):
        assert "HTTP server" in found.left_out[flag]
        assert flag not in found.args
    assert not {"--host", "--port"} & {*found.args, *found.left_out}


def test_a_flag_that_was_removed_is_neither_given_nor_left_out() -> None:
    given = deployment(HOPPER, "engine.flags.enable-scale-out=null")
    found = command(given, Role.PREFILL)
    assert "--enable-scale-out" not in {*found.args, *found.left_out}


def test_parsers_are_dynamos() -> None:
    given = with_flags(deployment(HOPPER), Role.DECODE, tool_call_parser="deepseek_v3", enable_auto_tool_choice=True)
    found = command(given, Role.DECODE)
    assert value(found.args, "--dyn-reasoning-parser") == "deepseek_r1"
    assert value(found.args, "--dyn-tool-call-parser") == "deepseek_v3"
    assert not {"--reasoning-parser", "--tool-call-parser", "--enable-auto-tool-choice"} & set(found.args)
    assert "--enable-auto-tool-choice" in found.left_out


def test_a_model_has_one_name_and_the_aliases_are_said_to_be_missing() -> None:
    found = command(deployment(HOPPER, "model.aliases=[r1, deepseek]"), Role.DECODE)
    at = found.args.index("--served-model-name")
    assert found.args[at + 1] == "deepseek-ai/DeepSeek-R1"
    assert found.args[at + 2].startswith("--")
    assert "model.aliases" in found.left_out
    assert "model.aliases" not in command(deployment(HOPPER), Role.DECODE).left_out


def test_everything_else_of_the_recipe_is_there_in_order() -> None:
    args = command(deployment(HOPPER, "roles.decode.flags.stream-interval=7"), Role.DECODE).args
    assert ("--stream-interval", "7") in pairwise(args)
    assert args[:2] == ("--model", "/model-cache/deepseek-r1")


@pytest.mark.parametrize("release", RELEASES)
def test_prefill_publishes_kv_events_where_the_frontend_reads_them(release: str) -> None:
    of = of_release(release)
    by_kv = version_key(release) >= (1, 0, 2)
    assert routes_by_kv(of) is by_kv
    assert frontend_args(of, 1) == ("--router-mode", "kv" if by_kv else "round-robin")
    assert ("--kv-events-config" in command(of, Role.PREFILL).args) is by_kv
    assert "--kv-events-config" not in command(of, Role.DECODE).args
    modes = load_engine(FRONTEND, release).flags["--router-mode"].choices
    assert frontend_args(of, 1)[1] in modes


def test_several_frontends_share_what_they_know_of_the_load() -> None:
    assert "--router-replica-sync" in frontend_args(deployment(HOPPER), 2)


@pytest.mark.parametrize("flags", [{"enable_prefix_caching": False}, {"no_enable_prefix_caching": True}])
def test_without_cached_prefixes_there_is_nothing_to_route_by(flags: dict[str, bool]) -> None:
    of = with_flags(deployment(GB200), Role.PREFILL, **flags)
    assert frontend_args(of, 2) == ("--router-mode", "round-robin")
    assert "--kv-events-config" not in command(of, Role.PREFILL).args


def test_kv_events_set_by_hand_are_kept() -> None:
    by_hand = {"enable_kv_cache_events": True, "publisher": "zmq", "endpoint": "tcp://*:7000"}
    args = command(with_flags(deployment(GB200), Role.PREFILL, kv_events_config=by_hand), Role.PREFILL).args
    assert "tcp://*:7000" in value(args, "--kv-events-config")


def test_an_unknown_release_is_refused_with_those_there_are() -> None:
    with pytest.raises(ConfigError, match=r"9\.9\.9.*0\.8\.0.*1\.6\.1"):
        vllm_of("9.9.9")


def test_the_vllm_of_a_release_is_the_catalogues() -> None:
    assert (vllm_of("0.8.1"), vllm_of("1.6.1")) == ("0.12.0", "0.31.0")
