"""Recipe to Deployment: every size multiplied out, nothing left open."""

from pathlib import Path

import pytest

from baton.base.errors import ConfigError
from baton.recipe.deployment import Deployment, resolve
from baton.recipe.document import parse
from baton.recipe.recipe import Recipe, Role, load_recipe

RECIPES = Path(__file__).parents[3] / "recipes"
DEEPSEEK = """\
baton: 1
name: deepseek-r1-32xh200
model:
  name: deepseek-ai/DeepSeek-R1
  repo: deepseek-ai/DeepSeek-R1
  revision: 56d4cbbb4d29f4355bab4b9a39ccb717a14ad5ad
  dtype: bfloat16
  quantization: fp8
  max_model_len: 32768
engine:
  version: 0.32.0
  flags:
    trust-remote-code: true
    all2all-backend: deepep_low_latency
    compilation-config: {cudagraph_mode: FULL_DECODE_ONLY}
  env:
    VLLM_MOE_DP_CHUNK_SIZE: "256"
    GLOO_SOCKET_IFNAME: eth0
hardware:
  accelerator: h200
  fabric: infiniband
kv_transfer:
  buffer_device: cuda
roles:
  prefill:
    nodes: 2
    gpus_per_node: 8
    dp_size: 16
    expert_parallel: true
    flags: {all2all-backend: deepep_high_throughput, enable-dbo: true}
  decode:
    nodes: 2
    gpus_per_node: 8
    dp_size: 16
    expert_parallel: true
    env: {GLOO_SOCKET_IFNAME: eth1}
"""


def deepseek(*edits: tuple[str, str]) -> Deployment:
    text = DEEPSEEK
    for old, new in edits:
        assert old in text
        text = text.replace(old, new)
    return resolve(parse(text, Recipe, source="r.yaml"), Path("/somewhere"))


def local(name: str) -> Deployment:
    return resolve(load_recipe(RECIPES / f"{name}.yaml"), RECIPES)


def test_tiny_local_is_one_process_a_role() -> None:
    deployment = local("tiny-local")
    assert [engine.name for engine in deployment.engines] == ["prefill-0", "decode-0"]
    for engine in deployment.engines:
        sizes = (
            engine.dp_size,
            engine.dp_size_local,
            engine.tp_size,
            engine.ep_size,
            engine.num_gpus,
            engine.num_nodes,
        )
        assert sizes == (1, 1, 1, 1, 0, 1)
        assert engine.dp_ranks == (0,)
        assert engine.load_balancing == "internal"
    assert deployment.model.path == RECIPES.parent / "models/tiny-r1/checkpoint"
    assert deployment.model.kv_dtype == "float32"
    assert (deployment.engine_name, deployment.engine_version) == ("vllm", "0.32.0")
    assert deployment.kv_transfer.connector == "NixlConnector"


def test_tiny_local_ep_is_two_ranks_and_split_experts_a_role() -> None:
    deployment = local("tiny-local-ep")
    assert [engine.role for engine in deployment.engines] == [Role.PREFILL, Role.DECODE]
    for engine in deployment.engines:
        assert (engine.dp_size, engine.dp_size_local, engine.ep_size, engine.num_gpus) == (2, 2, 2, 0)
        assert engine.dp_ranks == (0, 1)


def test_deepseek_r1_on_32_gpus_is_two_nodes_a_role_with_hybrid_load_balancing() -> None:
    deployment = deepseek()
    names = ["prefill-0-0", "prefill-0-1", "decode-0-0", "decode-0-1"]
    assert [engine.name for engine in deployment.engines] == names
    assert sum(engine.num_gpus for engine in deployment.engines) == 32
    for role in Role:
        first, second = deployment.of_role(role)
        assert (first.dp_start_rank, second.dp_start_rank) == (0, 8)
        assert (first.node_rank, second.node_rank) == (0, 1)
        assert first.dp_ranks + second.dp_ranks == tuple(range(16))
        for engine in (first, second):
            assert (engine.dp_size, engine.dp_size_local, engine.tp_size, engine.ep_size) == (16, 8, 1, 16)
            assert (engine.num_nodes, engine.num_gpus, engine.load_balancing) == (2, 8, "hybrid")
    assert deployment.model.kv_dtype == "bfloat16"
    assert deployment.model.path is None


def test_a_roles_flags_and_environment_win_over_the_engines() -> None:
    deployment = deepseek()
    prefill, decode = deployment.of_role(Role.PREFILL)[0], deployment.of_role(Role.DECODE)[0]
    assert prefill.flags["all2all-backend"] == "deepep_high_throughput"
    assert prefill.flags["enable-dbo"] is True
    assert decode.flags["all2all-backend"] == "deepep_low_latency"
    assert decode.flags["compilation-config"] == {"cudagraph_mode": "FULL_DECODE_ONLY"}
    assert (prefill.env["GLOO_SOCKET_IFNAME"], decode.env["GLOO_SOCKET_IFNAME"]) == ("eth0", "eth1")
    assert decode.env["VLLM_MOE_DP_CHUNK_SIZE"] == "256"


def test_replicas_are_further_copies_each_numbered_from_rank_0() -> None:
    deployment = deepseek(("  prefill:\n    nodes: 2", "  prefill:\n    replicas: 3\n    nodes: 2"))
    prefills = deployment.of_role(Role.PREFILL)
    assert [engine.name for engine in prefills] == [f"prefill-{r}-{n}" for r in range(3) for n in range(2)]
    assert [engine.dp_start_rank for engine in prefills] == [0, 8] * 3
    assert len({engine.name for engine in deployment.engines}) == 8


def test_tensor_parallel_ranks_share_a_data_parallel_rank() -> None:
    deployment = deepseek(("dp_size: 16", "dp_size: 4\n    tp_size: 4"))
    engine = deployment.engines[1]
    assert (engine.dp_size_local, engine.dp_start_rank, engine.ep_size) == (2, 2, 16)


def test_what_a_recipe_says_of_load_balancing_and_kv_format_is_kept() -> None:
    deployment = deepseek(
        ("dp_size: 16", "dp_size: 16\n    load_balancing: external"),
        ("dtype: bfloat16", "dtype: bfloat16\n  kv_dtype: fp8"),
    )
    assert {engine.load_balancing for engine in deployment.engines} == {"external"}
    assert deployment.model.kv_dtype == "fp8"


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (("dp_size: 16", "dp_size: 8"), "dp_size 8 x tp_size 1 = 8 ranks, but nodes 2 x gpus_per_node 8 = 16 GPUs"),
        (("dp_size: 16", "dp_size: 16\n    tp_size: 2"), "= 32 ranks"),
        (("dp_size: 16", "dp_size: 1\n    tp_size: 16"), "dp_size 1 does not divide over nodes 2"),
        (("gpus_per_node: 8", "gpus_per_node: 0"), "= 0 GPUs"),
        (("accelerator: h200", "accelerator: cpu"), "roles.prefill.gpus_per_node: got 8 with hardware.accelerator cpu"),
    ],
)
def test_sizes_that_do_not_multiply_out_are_refused(edit: tuple[str, str], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        deepseek(edit)
    assert said in str(caught.value)
    assert "roles.prefill" in str(caught.value)


def test_a_cpu_replica_on_several_nodes_and_experts_over_one_rank_are_refused() -> None:
    with pytest.raises(ConfigError, match="CPU replicas span 1 node"):
        deepseek(("accelerator: h200", "accelerator: cpu"), ("gpus_per_node: 8", "gpus_per_node: 0"))
    single = ("nodes: 2\n    gpus_per_node: 8\n    dp_size: 16", "gpus_per_node: 1")
    with pytest.raises(ConfigError, match="splits nothing"):
        deepseek(single)


def test_a_relative_path_starts_at_the_recipes_folder_and_an_absolute_one_does_not(tmp_path: Path) -> None:
    text = DEEPSEEK.replace("repo: deepseek-ai/DeepSeek-R1", "path: ../w").replace(
        "  revision: 56d4cbbb4d29f4355bab4b9a39ccb717a14ad5ad\n", ""
    )
    recipe = parse(text, Recipe, source="r.yaml")
    assert resolve(recipe, tmp_path / "recipes").model.path == tmp_path / "w"
    absolute = parse(text.replace("../w", "/mnt/w"), Recipe, source="r.yaml")
    assert resolve(absolute, tmp_path).model.path == Path("/mnt/w")


def test_resolving_is_pure() -> None:
    assert deepseek() == deepseek()
    assert deepseek().recipe_digest == parse(DEEPSEEK, Recipe, source="x").digest


def test_the_file_of_api_keys_starts_at_the_recipes_folder_and_a_secret_has_none(tmp_path: Path) -> None:
    def keys(source: str) -> tuple[str | None, str, Path | None]:
        recipe = parse(f"{DEEPSEEK}gateway: {{api_keys: {source}}}\n", Recipe, source="r.yaml")
        found = resolve(recipe, tmp_path / "recipes").gateway.api_keys
        assert found is not None
        return found.secret, found.key, found.file

    assert keys("{file: ../keys.yaml}") == (None, "api-keys.yaml", tmp_path / "keys.yaml")
    assert keys("{file: /etc/keys.yaml, secret: s, key: k}") == ("s", "k", Path("/etc/keys.yaml"))
    assert keys("{secret: s}") == ("s", "api-keys.yaml", None)
