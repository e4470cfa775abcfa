"""vLLM's command line: all that baton renders is read under its release, and what is wrong is named."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import pytest
import yaml
from support.kubelet import environment
from support.kubelet import words as words_of

from baton.base.errors import ConfigError
from baton.catalogue.engine import load_engine, versions
from baton.cli.render import rendered
from baton.engine.dynamo import vllm_of
from baton.engine.stand_in.arguments import read_arguments
from baton.engine.stand_in.config import StandInConfig, StepTime
from baton.recipe.recipe import load_recipe

ROOT = Path(__file__).parents[4]
CLUSTER_RECIPES = sorted(path for path in (ROOT / "recipes").glob("*.yaml") if "local" not in path.name)
POD = {"status.podIP": "10.0.0.7"}
LEADER = {"LWS_LEADER_ADDRESS": "leader.svc"}


def read(words: list[str], env: Mapping[str, str] | None = None, version: str = "0.33.0") -> StandInConfig:
    return read_arguments(words, env or {}, version, step_time=StepTime(), speed=1)[0]


def containers(node: Any) -> Iterator[dict[str, Any]]:
    """Everything in a tree of YAML that has words to run."""
    if isinstance(node, dict):
        if "args" in node:
            yield node
        for value in node.values():
            yield from containers(value)
    elif isinstance(node, list):
        for value in node:
            yield from containers(value)


def trees(files: Mapping[str, str]) -> list[Any]:
    return [tree for name, text in files.items() if name.endswith(".yaml") for tree in yaml.safe_load_all(text)]


def serving(files: Mapping[str, str], program: str) -> list[tuple[list[str], dict[str, str]]]:
    """Words after the program, and the environment, of every engine's container."""
    found = []
    for container in containers(trees(files)):
        env = environment(
            {"env": [one for one in container.get("env", []) if "value" in one or "fieldRef" in one["valueFrom"]]},
            POD, LEADER,
        )  # fmt: skip
        words = words_of(container, env)
        place = next((i for i, word in enumerate(words) if program in word.split()), None)
        if place is not None:  # a shell's own name stands before its arguments
            found.append((words[place + 1 + (words[place + 1] == "sh") :], env))
    return found


def committed(recipe: Path, target: str) -> dict[str, str]:
    return {path.name: path.read_text() for path in (ROOT / "deploy" / recipe.stem / target).iterdir()}


@pytest.mark.parametrize("source", ["rendered", "committed"])
@pytest.mark.parametrize("recipe", CLUSTER_RECIPES, ids=lambda path: path.stem)
def test_what_is_rendered_for_kubernetes_is_read(recipe: Path, source: str) -> None:
    files = rendered(recipe, "kubernetes") if source == "rendered" else committed(recipe, "kubernetes")
    given = load_recipe(recipe, None)
    engines = [(["serve", *words], env) for words, env in serving(files, "serve")]
    assert len(engines) >= 2, "prefill and decode"
    for words, env in engines:
        config = read(words, env, given.engine.version)
        assert (config.model, config.version) == (given.model.name, given.engine.version)
        assert (config.kv_connector, config.enable_scale_out, config.side_channel_host) == (True, True, "10.0.0.7")
        assert config.max_model_len == given.model.max_model_len


@pytest.mark.parametrize("source", ["rendered", "committed"])
@pytest.mark.parametrize("target", ["dynamo", "dynamo-v1beta1"])
@pytest.mark.parametrize("recipe", CLUSTER_RECIPES, ids=lambda path: path.stem)
def test_what_dynamo_hands_to_its_vllm_is_read(
    recipe: Path, target: Literal["dynamo", "dynamo-v1beta1"], source: str
) -> None:
    files = rendered(recipe, target) if source == "rendered" else committed(recipe, target)
    given = load_recipe(recipe, None)
    dynamo = given.cluster.dynamo.version
    own = load_engine("dynamo.vllm", dynamo).flags
    engines = serving(files, "dynamo.vllm")
    assert len(engines) >= 2, "prefill and decode"
    for words, env in engines:
        config = read(of_vllm(words, own), env, vllm_of(dynamo))
        assert (config.model, config.kv_connector) == (given.model.name, True)


def of_vllm(words: list[str], own: Mapping[str, Any]) -> list[str]:
    """The words that Dynamo's worker hands on, as `vllm serve` has them: without its own, the model first."""
    groups: list[list[str]] = []
    for word in words:
        if word.startswith("--"):
            groups.append([word])
        else:
            groups[-1].append(word)
    model = next(group[1] for group in groups if group[0] == "--model")
    kept = [group for group in groups if group[0] != "--model" and group[0] not in own]
    assert kept
    return ["serve", model, *(word for group in kept for word in group)]


@pytest.mark.parametrize("version", [version for version in versions("vllm") if version >= "0.13"])
def test_a_plain_command_line_is_read_under_every_release_that_hands_over(version: str) -> None:
    words = [
        "serve",
        "m",
        "--kv-transfer-config",
        '{"kv_connector":"NixlConnector"}',
        "--max-num-seqs=7",
        "--dtype",
        "auto",
    ]
    config = read(words, version=version)
    assert (config.version, config.max_num_seqs, config.kv_connector) == (version, 7, True)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "expected `serve MODEL`"),
        (["serve"], "expected `serve MODEL`"),
        (["serve", "--port", "1"], "expected `serve MODEL`"),
        (["serve", "m", "--prot", "1"], "0.33.0 has no flag '--prot'"),
        (["serve", "m", "n"], "has no flag 'n'"),
        (["serve", "m", "--port"], "--port needs a value"),
        (["serve", "m", "--port", "http"], "--port is 'http'; expected a whole number"),
        (["serve", "m", "--max-num-seqs", "1.5"], "--max-num-seqs is '1.5'; expected a whole number"),
        (["serve", "m", "--block-size", "0"], "block_size is 0; it must be above 0"),
        (["serve", "m", "--data-parallel-size", "0"], "dp_size is 0; it must be above 0"),
        (["serve", "m", "--max-model-len", "auto"], "'auto' is no number of tokens"),
        (["serve", "m", "--num-gpu-blocks-override", "1"], "num_gpu_blocks is 1"),
        (["serve", "m", "--kv-transfer-config", "{"], "--kv-transfer-config is not JSON"),
        (["serve", "m", "--kv-transfer-config", "[]"], "expected a JSON object"),
        (["serve", "m", "--kv-transfer-config", '{"kv_connector":"Mooncake"}'], "for NixlConnector only"),
        (
            ["serve", "m", "--kv-transfer-config",
             '{"kv_connector":"NixlConnector","kv_connector_extra_config":{"kv_lease_duration":"long"}}'],
            "kv_lease_duration is 'long'; expected seconds",
        ),
        (
            ["serve", "m", "--kv-transfer-config",
             '{"kv_connector":"NixlConnector","kv_load_failure_policy":"ignore"}'],
            "kv_load_failure_policy is 'ignore'; expected fail or recompute",
        ),
        (["serve", "m", "--kv-events-config", '{"enable_kv_cache_events":true,"endpoint":"ipc://x"}'], "tcp://"),
        (["serve", "m", "--data-parallel-size", "x"], "--data-parallel-size is 'x'"),
        (["serve", "m", "--headless"], "a stand-in serves all its ranks on one port"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(words: list[str], said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        read(words)
    assert said in str(caught.value)


def test_a_port_in_the_environment_that_is_none_is_named() -> None:
    words = ["serve", "m", "--kv-transfer-config", '{"kv_connector":"NixlConnector"}']
    with pytest.raises(ConfigError, match="VLLM_NIXL_SIDE_CHANNEL_PORT is 'x'; expected a whole number"):
        read(words, {"VLLM_NIXL_SIDE_CHANNEL_PORT": "x"})


def test_a_release_that_nobody_knows_is_refused() -> None:
    with pytest.raises(ConfigError, match="the catalogue knows no vLLM release near it"):
        read(["serve", "m"], version="0.7.3")


@pytest.mark.parametrize(
    ("text", "tokens"), [("8192", 8192), ("8k", 8000), ("8K", 8192), ("1.5k", 1500), ("2m", 2_000_000), ("1M", 2**20)]
)
def test_a_length_may_have_a_unit(text: str, tokens: int) -> None:
    assert read(["serve", "m", "--max-model-len", text]).max_model_len == tokens


@pytest.mark.parametrize(
    ("flags", "ranks"),
    [
        ([], range(1)),
        (["--data-parallel-size", "16"], range(16)),
        (
            ["--data-parallel-size", "16", "--data-parallel-size-local", "4", "--data-parallel-start-rank", "8"],
            range(8, 12),
        ),
        (["--data-parallel-size", "16", "--data-parallel-rank", "5", "--data-parallel-external-lb"], range(5, 6)),
    ],
)
def test_the_ranks_are_those_of_this_server(flags: list[str], ranks: range) -> None:
    assert read(["serve", "m", *flags]).ranks == ranks
