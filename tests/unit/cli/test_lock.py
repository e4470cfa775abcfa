"""`baton lock`, and what `render --locked` asks of it."""

import hashlib
import subprocess
import sys
from pathlib import Path

import pytest

from baton.base.errors import ConfigError
from baton.catalogue import engine as catalogue
from baton.cli.lock import lock_of, lock_path, locked_deployment
from baton.recipe.deployment import load_deployment
from baton.recipe.lock import load_lock
from baton.render import names

A, B = "sha256:" + "a" * 64, "sha256:" + "b" * 64
RECIPE = """
baton: 1
name: t
model: {name: tiny, repo: org/model, revision: "%s", dtype: bfloat16, max_model_len: 64}
engine: {version: 0.32.0}
hardware: {accelerator: h200}
kv_transfer: {buffer_device: cuda}
roles: {prefill: {gpus_per_node: 1}, decode: {gpus_per_node: 1}}
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    path = tmp_path / "t.yaml"
    path.write_text(RECIPE % ("0" * 40))
    return path


def baton(*args: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "baton", *map(str, args)]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_the_lock_lies_beside_the_recipe_and_says_what_is_not_known(recipe: Path) -> None:
    done = baton("lock", recipe, "--digest", f"baton:0.1.0={A}")
    assert done.returncode == 0, done.stderr
    found = load_lock(recipe.with_name("t.lock"))
    assert found.model.revision == "0" * 40
    assert found.images["gateway"].digest == A
    assert found.unknown == ("vllm/vllm-openai:v0.32.0", "nvcr.io/nvidia/ai-dynamo/vllm-runtime:1.6.1")
    file = Path(catalogue.__file__).parent / "engines" / "vllm-0.32.0.json"
    assert found.engine.catalogue_sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert "1 of 3 images by digest" in done.stdout
    assert "crane digest vllm/vllm-openai:v0.32.0" in done.stdout
    assert "crane digest baton:0.1.0" not in done.stdout
    assert [path.name for path in recipe.parent.iterdir() if path.name.startswith(".")] == []


def test_a_second_lock_keeps_digests_and_bytes(recipe: Path) -> None:
    baton("lock", recipe, "--digest", f"baton:0.1.0={A}")
    before = lock_path(recipe).read_bytes()
    assert baton("lock", recipe).returncode == 0
    assert lock_path(recipe).read_bytes() == before


def test_a_digest_may_be_given_by_the_name_the_cluster_pulls(recipe: Path) -> None:
    given = load_deployment(recipe, ["cluster.registry=mirror.example"])
    found = lock_of(given, digests={"mirror.example/vllm/vllm-openai:v0.32.0": A})
    assert found.images["engine"].digest == A
    assert found.images["engine"].reference == "vllm/vllm-openai:v0.32.0"


def test_a_release_without_a_catalogue_has_no_hash(recipe: Path) -> None:
    assert lock_of(load_deployment(recipe, ["cluster.dynamo.version=9.9.9"])).dynamo.catalogue_sha256 is None


@pytest.mark.parametrize("digest", ["baton:0.1.0", f"={A}", "baton:0.1.0=sha256:12", f"baton:0.1.0={A} "])
def test_a_digest_that_is_none_is_refused_and_nothing_written(recipe: Path, digest: str) -> None:
    done = baton("lock", recipe, "--digest", digest)
    assert done.returncode == 2
    assert "expected IMAGE=sha256:" in done.stderr
    assert not lock_path(recipe).exists()


def test_a_locked_deployment_pulls_by_digest_through_the_registry(recipe: Path) -> None:
    settings = ["cluster.registry=mirror.example"]
    baton("lock", recipe, "--set", settings[0], "--digest", f"vllm/vllm-openai:v0.32.0={B}")
    found = locked_deployment(recipe, settings, load_deployment(recipe, settings))
    assert names.engine_image(found) == f"mirror.example/vllm/vllm-openai:v0.32.0@{B}"
    assert names.image(found, found.cluster.gateway_image) == "mirror.example/baton:0.1.0"


def test_all_drift_is_named_with_what_to_do(recipe: Path) -> None:
    baton("lock", recipe)
    recipe.write_text(RECIPE % ("1" * 40))
    settings = ["engine.version=0.31.0"]
    with pytest.raises(ConfigError) as refused:
        locked_deployment(recipe, settings, load_deployment(recipe, settings))
    said = str(refused.value)
    for part in ("recipe: locked", "engine: locked vllm 0.32.0, now vllm 0.31.0", "model.revision", "image of engine"):
        assert part in said
    assert f"baton lock {recipe} --set engine.version=0.31.0" in said


def test_without_a_lock_nothing_is_pinned(recipe: Path) -> None:
    with pytest.raises(ConfigError, match="no such lock"):
        locked_deployment(recipe, None, load_deployment(recipe, None))
