"""Any valid recipe renders to valid objects, and its words reach the engine as they are, whatever stands in them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, event, given, settings
from support import kubelet
from support import kubernetes as built_in
from support.any_recipe import EVIL, recipes
from support.objects import Object, objects
from support.recorder import Recorded, Recorder
from support.renders import deployment, faults, render, unlisted

from baton.base.errors import ConfigError
from baton.engine.command import Place, serve_command
from baton.engine.dynamo import worker_command
from baton.recipe.deployment import Deployment, EngineSpec
from baton.recipe.document import parse
from baton.recipe.recipe import Recipe
from baton.recipe.workers import WorkersFile
from baton.render import addresses

LEADER = "leader.example"
POD = {"status.podIP": "10.0.0.7"}
FIRST_RANK = ("--data-parallel-start-rank", "--data-parallel-rank")
SHELLS = ("sh", "bash", "python3", "python")

some = settings(
    max_examples=25,
    suppress_health_check=list(HealthCheck),
    phases=[Phase.explicit, Phase.generate, Phase.shrink],
)


def rendered(recipe: Recipe, target: str) -> Mapping[str, str] | None:
    """The files; None if the target refuses the recipe, with words."""
    try:
        return render(recipe, target, Path("/"))
    except ConfigError as error:
        event(f"{target} refuses {str(error).split(':')[0]}")
        return None


def containers(each: Any) -> Iterator[Mapping[str, Any]]:
    """Every container anywhere in an object."""
    if isinstance(each, Mapping):
        if "command" in each or "args" in each:
            yield each
        for entry in each.values():
            yield from containers(entry)
    elif isinstance(each, list):
        for entry in each:
            yield from containers(entry)


def keys(each: Any) -> Iterator[str]:
    if isinstance(each, Mapping):
        yield from each
        each = list(each.values())
    if isinstance(each, list):
        for entry in each:
            yield from keys(entry)


def nothing_gets_out(found: list[Object]) -> None:
    """No text of a recipe is a key of YAML, and none is a program for a shell or an interpreter."""
    assert not [key for each in found for key in keys(each) if EVIL in key]
    for each in found:
        for container in containers(each):
            words = [*container.get("command", []), *container.get("args", [])]
            if words[0].rpartition("/")[2] in SHELLS and "-c" in words[:3]:
                assert EVIL not in words[words.index("-c") + 1]


def place(engine: EngineSpec) -> Place:
    spans = engine.num_nodes > 1
    return Place(
        host="0.0.0.0", http_port=8000, nixl_port=5600 + engine.dp_start_rank,
        dp_address=LEADER if spans else None, dp_rpc_port=13345 if spans else None,
    )  # fmt: skip


def rank_last(words: list[str]) -> list[str]:
    """The words with the first rank at their end, where a worker's shell puts it."""
    at = next((words.index(flag) for flag in FIRST_RANK if flag in words), len(words))
    return words[:at] + words[at + 2 :] + words[at : at + 2]


@pytest.fixture(scope="module")
def recorder(tmp_path_factory: pytest.TempPathFactory) -> Recorder:
    return Recorder(tmp_path_factory.mktemp("recorder"), ["vllm", "python3", "baton"])


def as_in_a_pod(container: Mapping[str, Any], recorder: Recorder, operator: Mapping[str, str]) -> Recorded:
    """What a container's process is given, after Kubernetes and any shell had their turn."""
    env = kubelet.environment(container, POD, operator)
    words = kubelet.words(container, env)
    return recorder.run(words, env) if words[0] == "/bin/sh" else Recorded(words, env)


@some
@given(recipe=recipes())
def test_on_kubernetes(recorder: Recorder, recipe: Recipe) -> None:
    files = rendered(recipe, "kubernetes")
    if files is None:
        return
    event("kubernetes takes it")
    found = objects(files)
    assert not faults(files, built_in.RELEASES[-1:])
    assert not unlisted(files)
    nothing_gets_out(found)
    given = deployment(recipe, "kubernetes", Path("/"))
    the_gateway_knows_its_workers(found, given)
    groups = {each["metadata"]["name"]: each["spec"] for each in found if each["kind"] == "LeaderWorkerSet"}
    for engine in given.engines:
        spec = groups[f"{given.name}-{engine.role}"]["leaderWorkerTemplate"]
        assert spec["size"] == engine.num_nodes
        template = (
            spec.get("leaderTemplate", spec["workerTemplate"]) if engine.node_rank == 0 else spec["workerTemplate"]
        )
        (container,) = template["spec"]["containers"]
        operator = {"LWS_LEADER_ADDRESS": LEADER, "LWS_WORKER_INDEX": str(engine.node_rank)}
        got = as_in_a_pod(container, recorder, operator)
        wanted = serve_command(given, engine, place(engine))
        is_worker = engine.node_rank > 0
        assert got.words == (rank_last(list(wanted.argv)) if is_worker else list(wanted.argv))
        of_pod = {"VLLM_NIXL_SIDE_CHANNEL_HOST": POD["status.podIP"]}
        assert got.env.items() >= {**wanted.env, **of_pod}.items()


def the_gateway_knows_its_workers(found: list[Object], given: Deployment) -> None:
    (text,) = (
        text
        for each in found
        if each["kind"] == "ConfigMap"
        for name, text in each["data"].items()
        if name == "workers.yaml"
    )
    assert parse(text, WorkersFile, source="workers.yaml") == addresses.workers_file(given)


@some
@given(recipe=recipes(accelerators=("h200", "gb200")))
def test_on_dynamo(recorder: Recorder, recipe: Recipe) -> None:
    for target in ("dynamo", "dynamo-v1beta1"):
        files = rendered(recipe, target)
        if files is None:
            continue
        event(f"{target} takes it")
        found = objects(files)
        assert not faults(files, built_in.RELEASES[-1:])
        assert not unlisted(files)
        nothing_gets_out(found)
        given = deployment(recipe, target, Path("/"))
        (graph,) = (each for each in found if each["kind"] == "DynamoGraphDeployment")
        for engine in (engine for engine in given.engines if engine.node_rank == 0):
            wanted = worker_command(given, engine, place(engine))
            got = as_in_a_pod(main_container(graph, engine.role), recorder, {})
            assert got.words == ["python3", "-m", "dynamo.vllm", *wanted.args]
            by_hand = {name: value for name, value in engine.env.items() if wanted.env.get(name) == value}
            assert got.env.items() >= by_hand.items()
            assert by_hand.keys() >= {name for name in engine.env if name.startswith(("V_", "X_", EVIL))}


def main_container(graph: Object, role: str) -> Mapping[str, Any]:
    if "components" in graph["spec"]:
        component = next(each for each in graph["spec"]["components"] if each["name"] == role)
        (container,) = component["podTemplate"]["spec"]["containers"]
        return dict(container)
    service = graph["spec"]["services"][role]
    return {**service["extraPodSpec"]["mainContainer"], "env": service.get("envs", [])}


@some
@given(recipe=recipes(max_nodes=1))
def test_on_one_machine(recorder: Recorder, tmp_path_factory: pytest.TempPathFactory, recipe: Recipe) -> None:
    """Each script run by a real shell."""
    files = rendered(recipe, "local")
    if files is None:
        return
    event("local takes it")
    folder = tmp_path_factory.mktemp("scripts")
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
        head = text.partition("\nset -eu\n")[0] if name.endswith(".sh") else ""
        assert EVIL not in head, name
    workers = parse(files["workers.yaml"], WorkersFile, source="workers.yaml")
    assert (workers.model, list(workers.aliases)) == (recipe.model.name, list(recipe.model.aliases))
    given = deployment(recipe, "local", Path("/"))
    for engine in given.engines:
        got = recorder.run(["sh", str(folder / f"{engine.name}.sh")], {})
        wanted = serve_command(given, engine, place_of(got, engine))
        assert got.words == list(wanted.argv)
        assert got.env.items() >= wanted.env.items()


def place_of(got: Recorded, engine: EngineSpec) -> Place:
    """The addresses are the target's to choose; all other words are not."""
    port = got.words[got.words.index("--port") + 1]
    side_channel = int(got.env["VLLM_NIXL_SIDE_CHANNEL_PORT"])
    return Place(host="127.0.0.1", http_port=int(port), nixl_port=side_channel + engine.dp_start_rank)
