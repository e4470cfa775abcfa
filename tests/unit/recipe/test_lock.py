"""A lock: what it keeps, when it is refused, and what it pins."""

from dataclasses import fields
from pathlib import Path

import pytest

from baton.base.errors import ConfigError
from baton.recipe.deployment import Deployment, resolve
from baton.recipe.document import parse
from baton.recipe.lock import (
    Lock,
    LockedImage,
    LockedModel,
    LockedRelease,
    drift,
    dump_lock,
    load_lock,
    locked_images,
    pinned,
)
from baton.recipe.recipe import Recipe

A, B = "sha256:" + "a" * 64, "sha256:" + "b" * 64
REFERENCES = {"engine": "vllm/vllm-openai:v1", "gateway": "baton:1", "dynamo": "nvcr.io/nvidia/runtime:2"}


def lock(**changes: object) -> Lock:
    release = LockedRelease(name="vllm", version="1", catalogue_sha256="c" * 64)
    found = Lock(
        baton="0.1.0",
        recipe_sha256="d" * 64,
        settings=("cluster.namespace=a",),
        engine=release,
        dynamo=LockedRelease(name="dynamo", version="2", catalogue_sha256=None),
        model=LockedModel(repo="org/model", revision="e" * 40),
        images=locked_images(REFERENCES, {REFERENCES["engine"]: A}),
    )
    return found.model_copy(update=changes)


def deployment() -> Deployment:
    text = """
baton: 1
name: t
model: {name: tiny, path: model, dtype: float32, max_model_len: 64}
engine: {version: 0.32.0}
hardware: {accelerator: cpu}
kv_transfer: {buffer_device: cpu}
roles: {prefill: {}, decode: {}}
cluster: {registry: mirror.example, dynamo: {version: 1.4.2}}
"""
    return resolve(parse(text, Recipe, source="t"), Path())


def test_a_lock_reads_back_equal_and_its_bytes_are_stable(tmp_path: Path) -> None:
    path = tmp_path / "r.lock"
    path.write_text(dump_lock(lock()))
    assert load_lock(path) == lock()
    assert dump_lock(load_lock(path)) == path.read_text()
    assert path.read_text().startswith("# Written by `baton lock`")
    assert "digest: null" in path.read_text()


def test_a_lock_that_is_not_there_says_what_makes_it(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="`baton lock` writes it"):
        load_lock(tmp_path / "r.lock")


def test_a_lock_of_another_shape_is_refused_with_its_line(tmp_path: Path) -> None:
    path = tmp_path / "r.lock"
    path.write_text(dump_lock(lock()).replace("lock: 1\n", "lock: 1\nimagez: {}\n"))
    with pytest.raises(
        ConfigError,
        match=r"r\.lock:4:1: imagez: unknown key; did you mean 'images'(.|\n)*or remove it and run `baton lock`",
    ):
        load_lock(path)


def test_a_digest_is_the_references_own_then_the_one_given_then_the_one_locked_before() -> None:
    before = lock(images={use: LockedImage(reference=name, digest=A) for use, name in REFERENCES.items()})
    found = locked_images({**REFERENCES, "gateway": f"baton:1@{B}"}, {REFERENCES["engine"]: B}, before)
    assert {use: image.digest for use, image in found.items()} == {"engine": B, "gateway": B, "dynamo": A}


def test_a_digest_locked_before_goes_with_its_tag() -> None:
    found = locked_images({**REFERENCES, "engine": "vllm/vllm-openai:v2"}, {}, lock())
    assert found["engine"].digest is None


def test_a_digest_of_an_image_that_is_not_used_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"--digest other:1: .* it uses vllm/vllm-openai:v1, baton:1"):
        locked_images(REFERENCES, {"other:1": A})


def test_a_digest_against_the_references_own_is_refused() -> None:
    with pytest.raises(ConfigError, match=f"the reference itself says {A}"):
        locked_images({"engine": f"v:1@{A}"}, {f"v:1@{A}": B})


def test_nothing_has_drifted_from_itself() -> None:
    assert drift(lock(), lock()) == []


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"baton": "0.2.0"}, "baton: locked 0.1.0, now 0.2.0"),
        (
            {"engine": LockedRelease(name="vllm", version="2", catalogue_sha256="c" * 64)},
            "engine: locked vllm 1, now vllm 2",
        ),
        (
            {"dynamo": LockedRelease(name="dynamo", version="2", catalogue_sha256="f" * 64)},
            f"catalogue of dynamo: locked none, now {'f' * 64}",
        ),
        ({"model": LockedModel(repo="org/model", revision=None)}, f"model.revision: locked {'e' * 40}, now none"),
        (
            {"images": locked_images({**REFERENCES, "gateway": "baton:2"}, {REFERENCES["engine"]: A})},
            "image of gateway: locked baton:1, now baton:2",
        ),
    ],
)
def test_each_difference_is_a_line(change: dict[str, object], line: str) -> None:
    assert drift(lock(), lock(**change)) == [line]


def test_settings_explain_another_recipe_and_say_nothing_of_the_same() -> None:
    assert drift(lock(), lock(settings=())) == []
    assert drift(lock(), lock(settings=(), recipe_sha256="0" * 64)) == [
        f"recipe: locked {'d' * 64}, now {'0' * 64}",
        "settings (--set): locked cluster.namespace=a, now none",
    ]


def test_pinning_changes_the_images_and_nothing_else() -> None:
    before = deployment()
    found = pinned(before, lock(images=locked_images(REFERENCES, {REFERENCES["engine"]: A, REFERENCES["dynamo"]: B})))
    assert found.cluster.image == f"{REFERENCES['engine']}@{A}"
    assert found.cluster.gateway_image == REFERENCES["gateway"]
    assert found.cluster.dynamo.image == f"{REFERENCES['dynamo']}@{B}"
    assert found.cluster.dynamo.version == "1.4.2"
    assert found.cluster.registry == "mirror.example"
    others = [field.name for field in fields(Deployment) if field.name != "cluster"]
    assert all(getattr(found, name) == getattr(before, name) for name in others)


def test_a_reference_with_its_digest_is_pinned_as_it_is() -> None:
    found = pinned(deployment(), lock(images=locked_images({**REFERENCES, "engine": f"v:1@{A}"}, {})))
    assert found.cluster.image == f"v:1@{A}"
