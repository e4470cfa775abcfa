"""The exact `vllm serve` command of an engine."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from baton.base.errors import BugError, ConfigError
from baton.engine.command import Command, Place, serve_command
from baton.recipe.deployment import Deployment, resolve
from baton.recipe.document import parse
from baton.recipe.recipe import Recipe, Role

PLACE = Place(host="127.0.0.1", http_port=21000, nixl_port=21100, executable=("/venv/bin/vllm",))


def deployment(
    *,
    model: str = "path: model, dtype: float32",
    flags: str = "{}",
    env: str = "{}",
    hardware: str = "{accelerator: cpu}",
    kv: str = "{buffer_device: cpu}",
    prefill: str = "{}",
    decode: str = "{}",
    version: str = "0.32.0",
) -> Deployment:
    text = f"""
        baton: 1
        name: t
        model: {{name: tiny, aliases: [big/one], {model}, max_model_len: 2048}}
        engine: {{version: {version}, flags: {flags}, env: {env}}}
        hardware: {hardware}
        kv_transfer: {kv}
        roles: {{prefill: {prefill}, decode: {decode}}}
    """
    return resolve(parse(text, Recipe, source="t.yaml"), Path("/recipes"))


def command(given: Deployment, role: Role = Role.PREFILL, node: int = 0, place: Place = PLACE) -> Command:
    return serve_command(given, given.of_role(role)[node], place)


def value_of(flag: str, given: Command) -> str:
    return given.argv[given.argv.index(flag) + 1]


def test_the_whole_command_of_a_cpu_prefill_engine() -> None:
    """Nothing is missing and nothing is there that the recipe did not say."""
    given = command(deployment(flags="{attention-backend: CPU_MLA, enforce-eager: true}", env='{A: "1"}'))
    assert given.argv == (
        "/venv/bin/vllm", "serve", "/recipes/model", "--host", "127.0.0.1", "--port", "21000",
        "--served-model-name", "tiny", "big/one", "--max-model-len", "2048", "--dtype", "float32",
        "--tensor-parallel-size", "1", "--data-parallel-size", "1", "--kv-transfer-config",
        '{"kv_connector":"NixlConnector","kv_role":"kv_producer","kv_buffer_device":"cpu",'
        '"kv_load_failure_policy":"fail","kv_connector_extra_config":{"kv_lease_duration":30}}',
        "--attention-backend", "CPU_MLA", "--enforce-eager",
    )  # fmt: skip
    assert given.env == {
        "VLLM_NIXL_SIDE_CHANNEL_HOST": "127.0.0.1",
        "VLLM_NIXL_SIDE_CHANNEL_PORT": "21100",
        "VLLM_NO_USAGE_STATS": "1",
        "DO_NOT_TRACK": "1",
        "HF_HUB_OFFLINE": "1",
        "A": "1",
    }


def test_decode_consumes() -> None:
    """The KV role follows the engine's role, and further connector settings are passed on."""
    kv = "{buffer_device: cpu, load_failure_policy: recompute, lease_s: 60, extra: {backends: [UCX]}}"
    config = json.loads(value_of("--kv-transfer-config", command(deployment(kv=kv), Role.DECODE)))
    assert config["kv_role"] == "kv_consumer"
    assert config["kv_load_failure_policy"] == "recompute"
    assert config["kv_connector_extra_config"] == {"kv_lease_duration": 60, "backends": ["UCX"]}


@pytest.mark.parametrize(
    ("version", "has_policy", "has_lease"),
    [
        ("0.11.2", False, False),
        ("0.12.0", False, False),
        ("0.13.0", True, False),
        ("0.21.0", True, False),
        ("0.22.1", True, True),
        ("9.0.0", True, True),
    ],
)
def test_a_release_gets_only_the_connector_settings_it_has(version: str, has_policy: bool, has_lease: bool) -> None:
    """An older release exits over a key it lacks; one that is not known, nor another patch of it, gets all."""
    config = json.loads(value_of("--kv-transfer-config", command(deployment(version=version))))
    assert ("kv_load_failure_policy" in config) is has_policy
    assert ("kv_lease_duration" in config.get("kv_connector_extra_config", {})) is has_lease


def test_a_repository_has_a_revision_and_is_not_offline() -> None:
    """Weights from Hugging Face are pinned; only a local checkpoint turns the hub off."""
    given = command(deployment(model="repo: deepseek-ai/DeepSeek-R1, revision: abc, dtype: bfloat16"))
    assert given.argv[1:5] == ("serve", "deepseek-ai/DeepSeek-R1", "--revision", "abc")
    assert "HF_HUB_OFFLINE" not in given.env


@pytest.mark.parametrize(
    ("model", "expected"),
    [
        ("quantization: fp8", ("--quantization", "fp8")),
        ("quantization: nvfp4", ()),
        ("kv_dtype: bfloat16", ()),
        ("kv_dtype: fp8", ("--kv-cache-dtype", "fp8")),
    ],
)
def test_precision_flags_are_given_only_where_they_say_something(model: str, expected: tuple[str, ...]) -> None:
    """fp8 is confirmed, nvfp4 is the checkpoint's own, a KV cache in the model's own format needs no flag."""
    argv = command(deployment(model=f"path: m, dtype: bfloat16, {model}")).argv
    assert argv[argv.index("--dtype") + 2 : argv.index("--tensor-parallel-size")] == expected


H200 = "{accelerator: h200, fabric: infiniband}"


def test_expert_parallel_on_one_node_has_one_api_server() -> None:
    """All ranks of a node answer on one address; an abort by id must reach the process that knows the request."""
    argv = command(deployment(prefill="{dp_size: 2, expert_parallel: true}")).argv
    assert argv[argv.index("--data-parallel-size") : argv.index("--kv-transfer-config")] == (
        "--data-parallel-size", "2", "--enable-expert-parallel",
    )  # fmt: skip
    assert argv[-2:] == ("--api-server-count", "1")
    own = command(deployment(prefill="{dp_size: 2, flags: {api-server-count: 2}}")).argv
    assert own[-2:] == ("--api-server-count", "2")


@pytest.mark.parametrize(
    ("balancing", "gpus", "expected"),
    [
        ("hybrid", 8, "--data-parallel-size-local 8 --data-parallel-start-rank 8 --data-parallel-hybrid-lb"),
        ("internal", 8, "--data-parallel-size-local 8 --data-parallel-start-rank 8 --headless"),
        ("external", 1, "--data-parallel-external-lb --data-parallel-rank 1"),
        (
            "external",
            8,
            "--data-parallel-multi-port-external-lb --data-parallel-size-local 8 --data-parallel-start-rank 8",
        ),
    ],
)
def test_second_of_two_nodes(balancing: str, gpus: int, expected: str) -> None:
    """Ranks of a later node are told apart by the load balancing mode, and find the first node."""
    pool = f"{{nodes: 2, gpus_per_node: {gpus}, dp_size: {2 * gpus}, load_balancing: {balancing}}}"
    given = deployment(hardware=H200, kv="{buffer_device: cuda}", prefill=pool, decode="{gpus_per_node: 1}")
    place = Place(host="10.0.0.2", http_port=8000, nixl_port=5600 + gpus, dp_address="10.0.0.1", dp_rpc_port=29550)
    made = command(given, node=1, place=place)
    flags = " ".join(made.argv[made.argv.index("--data-parallel-size") + 2 : made.argv.index("--kv-transfer-config")])
    assert flags == f"{expected} --data-parallel-address 10.0.0.1 --data-parallel-rpc-port 29550"
    assert made.env["VLLM_NIXL_SIDE_CHANNEL_PORT"] == "5600"


def test_a_node_that_cannot_find_the_first_is_a_bug() -> None:
    """A target must say where a replica's first node is."""
    pool = "{nodes: 2, gpus_per_node: 1, dp_size: 2}"
    given = deployment(hardware=H200, kv="{buffer_device: cuda}", prefill=pool, decode="{gpus_per_node: 1}")
    with pytest.raises(BugError, match="dp_address"):
        command(given)


def test_flags_of_every_shape() -> None:
    """True, false, mappings, lists, numbers and null each have one spelling; a role's flag wins over the engine's."""
    flags = "{x-a: true, x-b: false, x-c: {x: [1]}, x-d: [p, {q: 1}], x-e: 0.5, x-f: null, x-g: 1}"
    argv = command(deployment(flags=flags, prefill="{flags: {x-g: 2}}")).argv
    assert argv[argv.index("--x-a") :] == (
        "--x-a", "--no-x-b", "--x-c", '{"x":[1]}', "--x-d", "p", '{"q":1}', "--x-e", "0.5", "--x-g", "2",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("flag", "field"),
    [
        ("port", "the target chooses"),
        ("dtype", "model.dtype"),
        ("served-model-name", "model.name"),
        ("data-parallel-size", "roles.prefill.dp_size"),
        ("no-enable-expert-parallel", "roles.prefill.expert_parallel"),
        ("max-model", "model.max_model_len"),
        ("kv-transfer-config", "kv_transfer"),
    ],
)
def test_a_flag_that_a_field_decides_is_refused(flag: str, field: str) -> None:
    """The message names the role, the flag and what to set in its place."""
    with pytest.raises(ConfigError, match=rf"flag '{flag}' of role prefill.*set .*{field}"):
        command(deployment(prefill=f"{{flags: {{{flag}: 1}}}}"))


def test_underscores_are_no_way_around() -> None:
    """vLLM takes both spellings of a flag, a recipe only one."""
    with pytest.raises(ConfigError, match=r"roles\.prefill\.flags\.max_model_len"):
        deployment(prefill="{flags: {max_model_len: 5}}")


def test_lease_and_side_channel_have_one_home() -> None:
    """What a field or the target decides can't be set a second way."""
    with pytest.raises(ConfigError, match=r"kv_transfer\.lease_s"):
        command(deployment(kv="{buffer_device: cpu, extra: {kv_lease_duration: 5}}"))
    with pytest.raises(ConfigError, match="VLLM_NIXL_SIDE_CHANNEL_PORT of role prefill"):
        command(deployment(env='{VLLM_NIXL_SIDE_CHANNEL_PORT: "1"}'))


def test_flags_that_only_look_alike_pass() -> None:
    """Refusing goes by whole names and beginnings: a longer flag of the engine is its own."""
    assert "--quantization-config" in command(deployment(flags="{quantization-config: {}}")).argv
