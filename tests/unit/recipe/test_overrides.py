"""`--set field=value`: what it changes, what it leaves as it is, and what it refuses."""

from __future__ import annotations

import pytest
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st
from support.any_recipe import TEXT

from baton.base.errors import ConfigError
from baton.recipe.document import parse
from baton.recipe.overrides import override
from baton.recipe.recipe import Recipe

RECIPE = """\
# what this is: ein Rezept für é
baton: 1
name: small   # short
model: {name: "m", path: /m, dtype: float32, max_model_len: 2048}
engine:
  version: '0.32.0'
  flags:
    seed: 7
hardware: {accelerator: cpu}
kv_transfer: {buffer_device: cpu}
roles: {prefill: {}, decode: {}}
"""


def recipe(*settings: str, text: str = RECIPE) -> Recipe:
    return parse(override(text, settings, source="r.yaml"), Recipe, source="r.yaml")


def test_nothing_set_is_the_same_text() -> None:
    assert override(RECIPE, [], source="r.yaml") is RECIPE


@pytest.mark.parametrize(
    ("setting", "field", "value"),
    [
        ("name=other", "name", "other"),
        ("engine.version=0.22.1", "engine.version", "0.22.1"),
        ("cluster.namespace=serving", "cluster.namespace", "serving"),
        ("cluster.model_cache.storage_class=fast", "cluster.model_cache.storage_class", "fast"),
        ("cluster.monitoring_namespace=null", "cluster.monitoring_namespace", None),
        ("cluster.rdma_devices_per_node=8", "cluster.rdma_devices_per_node", 8),
        ("cluster.tolerations=[{key: a}]", "cluster.tolerations.0.key", "a"),
        ("engine.flags.seed=[1, 2]", "engine.flags.seed", [1, 2]),
        ("engine.flags.kind=a=b", "engine.flags.kind", "a=b"),
        ("engine.env.A='1'", "engine.env.A", "1"),
        ('description=""', "description", ""),
    ],
)
def test_a_field_is_set(setting: str, field: str, value: object) -> None:
    found: object = recipe(setting)
    for part in field.split("."):
        found = found[part] if isinstance(found, dict) else found[0] if part == "0" else getattr(found, part)  # type: ignore[index]
    assert found == value


def test_the_rest_of_the_file_stays_as_it_was_written() -> None:
    """Comments, quotes, and the line of everything above."""
    changed = override(RECIPE, ["engine.flags.seed=8"], source="r.yaml")
    assert changed == RECIPE.replace("seed: 7", "seed: 8")


def test_the_last_setting_of_a_field_counts() -> None:
    assert recipe("name=a", "name=b").name == "b"


def test_what_is_set_changes_the_digest() -> None:
    assert recipe("cluster.namespace=other").digest != recipe().digest


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("cluster.namespace", "expected field.of.field=value"),
        ("=x", "expected field.of.field=value"),
        ("cluster..namespace=x", "expected field.of.field=value"),
        ("name.first=x", "name is not a mapping in this recipe"),
        ("engine.version.major=0", "engine.version is not a mapping"),
        ("name=[", "the value is not YAML"),
        ("name='a", "the value is not YAML"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_by_name(setting: str, said: str) -> None:
    with pytest.raises(ConfigError) as caught:
        override(RECIPE, [setting], source="r.yaml")
    assert f"--set {setting!r}" in str(caught.value)
    assert said in str(caught.value)


def test_a_field_that_does_not_exist_is_refused_as_in_the_file() -> None:
    with pytest.raises(ConfigError, match=r"cluster\.namespce: unknown key; did you mean 'namespace'\?"):
        recipe("cluster.namespce=x")


@pytest.mark.parametrize("text", ["", "[1]", "a: 1\n", "'", "a: *b\n", "- a: [\n"])
def test_a_file_that_is_no_recipe_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"r\.yaml"):
        override(text, ["name=x"], source="r.yaml")


def quoted(text: str) -> str:
    """The text as a person may write it in YAML, in ASCII and on one line."""
    return str(yaml.safe_dump(text, default_style='"', width=1 << 30)).strip()


@settings(max_examples=50)
@example("\x85", "")
@given(TEXT, TEXT)
def test_any_text_is_set_as_it_is_and_leaves_others_as_they_are(new: str, other: str) -> None:
    text = RECIPE + f"description: {quoted(other)}\n"
    found = recipe(f"engine.env.A={quoted(new)}", text=text)
    assert (found.engine.env["A"], found.description) == (new, other)


@given(st.lists(st.one_of(st.text(max_size=30), st.sampled_from(["name=", "a.b=", "engine=", "roles.decode=*a"]))))
def test_any_setting_ends_in_a_text_or_a_config_error(given_settings: list[str]) -> None:
    try:
        override(RECIPE, given_settings, source="r.yaml")
    except ConfigError:
        return
