"""A YAML file in, a frozen object or an error that points at the line out."""

import warnings
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError
from ruamel.yaml.error import YAMLWarning

from baton.base.errors import ConfigError
from baton.recipe.document import load, parse
from baton.recipe.recipe import Recipe, load_recipe

RECIPES = Path(__file__).parents[3] / "recipes"
SMALL = """\
baton: 1
name: small
model:
  name: m
  path: /m
  dtype: float32
  max_model_len: 2048
engine:
  version: 0.32.0
hardware:
  accelerator: cpu
kv_transfer:
  buffer_device: cpu
roles:
  prefill: {}
  decode: {}
"""
NESTED = "    a0: &a0 [1]\n" + "".join(f"    a{i}: &a{i} [*a{i - 1}]\n" for i in range(1, 1200))
"""Aliases make a shallow text deep."""


def error_of(text: str) -> str:
    with pytest.raises(ConfigError) as caught:
        parse(text, Recipe, source="r.yaml")
    return str(caught.value)


def edited(old: str, new: str) -> str:
    assert old in SMALL
    return SMALL.replace(old, new)


def test_a_small_recipe_is_read_with_its_defaults() -> None:
    recipe = parse(SMALL, Recipe, source="r.yaml")
    assert recipe.gateway.port == 8000
    assert recipe.kv_transfer.load_failure_policy == "fail"
    assert recipe.kv_transfer.lease_s == 30
    assert recipe.roles.decode.dp_size == 1


@pytest.mark.parametrize("name", ["tiny-local", "tiny-local-ep"])
def test_the_recipes_that_come_with_baton_are_read(name: str) -> None:
    assert load_recipe(RECIPES / f"{name}.yaml").name == name


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (
            edited("  max_model_len", "  max_modle_len"),
            "r.yaml:7:3: model.max_modle_len: unknown key; did you mean 'max_model_len'? allowed: aliases,",
        ),
        (edited("  prefill: {}", "  prefill: {dp: 2}"), "r.yaml:15:13: roles.prefill.dp: unknown key;"),
        (
            edited("name: small", "name: small\nzzz: 1"),
            "r.yaml:3:1: zzz: unknown key; allowed: baton, cluster, description,",
        ),
        (edited("hardware:\n  accelerator: cpu\n", ""), "r.yaml:1:1: hardware: missing; it has no default"),
        (edited("  dtype: float32\n", ""), "r.yaml:3:1: model.dtype: missing; it has no default"),
        (
            edited("max_model_len: 2048", "max_model_len: '2048'"),
            "r.yaml:7:3: model.max_model_len: got '2048': Input should be a valid integer",
        ),
        (edited("max_model_len: 2048", "max_model_len: 2.0"), "r.yaml:7:3: model.max_model_len: got 2.0: "),
        (edited("max_model_len: 2048", "max_model_len: true"), "r.yaml:7:3: model.max_model_len: got True: "),
        (
            edited("max_model_len: 2048", "max_model_len: 0"),
            "r.yaml:7:3: model.max_model_len: got 0: Input should be greater",
        ),
        (
            edited("dtype: float32", "dtype: fp32"),
            "r.yaml:6:3: model.dtype: got 'fp32': Input should be 'float32', 'bfloat16' or 'float16'",
        ),
        (edited("prefill: {}", "prefill: 3"), "r.yaml:15:3: roles.prefill: got 3: expected a mapping, such as"),
        (edited("prefill: {}", "prefill:"), "r.yaml:15:3: roles.prefill: got null: expected a mapping, such as"),
        (edited("name: small", "name: small\nrun_on: a"), "r.yaml:3:1: run_on: got 'a': expected a list, such as"),
        (
            edited("version: 0.32.0", "version: 0.32"),
            "r.yaml:9:3: engine.version: got 0.32: Input should be a valid string; put it in quotes",
        ),
        (edited("version: 0.32.0", "version: v1"), "(Release, such as 0.32.0.)"),
        (
            edited("prefill: {}", "prefill: {expert_parallel: 'yes'}"),
            "r.yaml:15:13: roles.prefill.expert_parallel: got 'yes'",
        ),
        (edited("name: small", "name: Small_One"), "r.yaml:2:1: name: got 'Small_One': String should match pattern"),
        (edited("baton: 1", "baton: 2"), "r.yaml:1:1: baton: got 2: Input should be 1"),
        (edited("  path: /m\n", ""), "give `path` (a checkpoint folder) or `repo` with `revision`"),
        (edited("path: /m", "repo: a/b"), "`repo: a/b` needs `revision`, a commit"),
        (edited("version: 0.32.0", "version: latest"), "r.yaml:9:3: engine.version: got 'latest'"),
        (edited("version: 0.32.0", "version: 0.32.0\n  flags: {--seed: 1}"), "r.yaml:10:11: engine.flags.--seed"),
        (
            edited("version: 0.32.0", "version: 0.32.0\n  env: {A: 1}"),
            "r.yaml:10:9: engine.env.A: got 1: Input should be a valid string",
        ),
        (
            edited("version: 0.32.0", 'version: 0.32.0\n  env: {B: "", A: "a\\0"}'),
            "r.yaml:10:16: engine.env.A: got 'a\\x00': no command line or file can hold a NUL",
        ),
        (
            edited("name: m\n", 'name: m\n  aliases: [a, "\\ud83d"]\n'),
            "r.yaml:5:16: model.aliases.1: got '\\ud83d': no command line or file can hold a NUL or half a surrogate",
        ),
        (edited("name: small", "name: small\nname: other"), "r.yaml:3:1: not valid YAML: found duplicate key"),
        (edited("name: small", "name: [small"), "not valid YAML"),
        (edited("name: small", "name: 'small"), "not valid YAML"),
        (edited("name: small", "name: *nobody"), "r.yaml:2:7: not valid YAML: found undefined alias"),
        (edited("name: small", "\tname: small"), "not valid YAML"),
        (edited("name: small", "name: 2020-99-99"), "r.yaml: not valid YAML: month must be in 1..12"),
        (edited("name: small", "name: \x00"), "r.yaml: not valid YAML"),
        (edited("max_model_len: 2048", "max_model_len: " + "9" * 5000), "r.yaml: not valid YAML"),
        (edited("name: small", "name: small\n? [1, 2]\n: 3"), "unknown key"),
        (edited("name: small", "name: small\n? {a: 1}\n: 3"), "unknown key"),
        (edited("name: small", "name: small\n1: 3"), "r.yaml:"),
        (edited("version: 0.32.0", "version: 0.32.0\n  flags:\n" + NESTED), "nested too deeply"),
        (edited("name: small", "name: " + "[" * 1000), "nested too deeply"),
        ("!!omap", "r.yaml: not valid YAML"),
        ("!!omap [0: ]", "r.yaml:1:1: 0: got 0: Keys should be strings"),
        (SMALL + "---\n" + SMALL, "not valid YAML"),
        ("", "r.yaml:1:1: expected a mapping of Recipe fields, found nothing"),
        ("# only a comment\n", "r.yaml:1:1: expected a mapping of Recipe fields, found nothing"),
        ("- 1\n- 2\n", "r.yaml:1:1: expected a mapping of Recipe fields, found CommentedSeq"),
        ("hello", "r.yaml:1:1: expected a mapping of Recipe fields, found str"),
    ],
)
def test_an_error_names_file_line_column_field_value_and_what_is_allowed(text: str, expected: str) -> None:
    assert expected in error_of(text)


def test_every_fault_of_a_file_is_reported_in_one_go() -> None:
    text = (
        edited("dtype: float32", "dtype: fp32")
        .replace("accelerator: cpu", "accelerator: tpu")
        .replace("decode: {}", "")
    )
    lines = error_of(text).splitlines()
    assert [line.split(" ")[1] for line in lines] == ["model.dtype:", "hardware.accelerator:", "roles.decode:"]


def test_a_long_value_is_shown_cut() -> None:
    assert len(error_of(edited("name: small", "name: " + "A" * 500)).splitlines()[0]) < 250


@pytest.mark.parametrize(
    ("raw", "said"), [(b"\xff\xfe\x00name", "not UTF-8 text"), (None, "No such file"), ("folder", "Is a directory")]
)
def test_a_file_that_cannot_be_read_is_an_error_that_names_it(
    tmp_path: Path, raw: bytes | str | None, said: str
) -> None:
    path = tmp_path / "r.yaml"
    if raw == "folder":
        path.mkdir()
    elif isinstance(raw, bytes):
        path.write_bytes(raw)
    with pytest.raises(ConfigError) as caught:
        load(path, Recipe)
    assert str(caught.value).startswith(f"{path}: cannot read it: {said}")
    assert str(caught.value).endswith("; give the path of a Recipe file")


def test_anchors_and_every_spelling_of_a_number_mean_what_yaml_says() -> None:
    text = edited("prefill: {}", "prefill: &pool {dp_size: 0x2, expert_parallel: &yes true}").replace(
        "decode: {}", "decode: {dp_size: 2, expert_parallel: *yes}"
    )
    recipe = parse(text, Recipe, source="r.yaml")
    assert recipe.roles.prefill == recipe.roles.decode
    assert recipe.roles.prefill.expert_parallel is True
    assert type(recipe.roles.prefill.dp_size) is int
    assert type(recipe.name) is str


def test_a_recipe_cannot_be_changed() -> None:
    recipe = parse(SMALL, Recipe, source="r.yaml")
    with pytest.raises(ValidationError, match="frozen"):
        recipe.name = "other"  # type: ignore[misc]


def test_the_digest_is_of_the_meaning_not_of_the_text() -> None:
    flags = "  flags: {a: 1, b: {x: 1, y: 2}}\n  env: {A: '1', B: '2'}\n"
    turned = "  env: {B: '2', A: '1'}   # turned\n  flags:\n    b: {y: 2, x: 1}\n    a: 1\n"
    one = parse(edited("  version: 0.32.0\n", "  version: 0.32.0\n" + flags), Recipe, source="a")
    lines = edited("  version: 0.32.0\n", "  version: 0.32.0\n" + turned).split("name: small\n")
    other = parse("# a comment\n" + "".join(lines) + "name: 'small'\n", Recipe, source="b")
    assert one.digest == other.digest
    assert len(one.digest) == 64
    assert one.digest == parse(edited("  version: 0.32.0\n", "  version: 0.32.0\n" + flags), Recipe, source="c").digest


def test_a_default_written_out_does_not_change_the_digest() -> None:
    said = edited("buffer_device: cpu", "buffer_device: cpu\n  lease_s: 30")
    assert parse(SMALL, Recipe, source="a").digest == parse(said, Recipe, source="b").digest


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("name: small", "name: other"),
        ("max_model_len: 2048", "max_model_len: 2049"),
        ("path: /m", "path: /n"),
        ("version: 0.32.0", "version: 0.32.1"),
        ("version: 0.32.0", "version: 0.32.0\n  flags: {a: 1}"),
        ("version: 0.32.0", "version: 0.32.0\n  flags: {a: true}"),
        ("buffer_device: cpu", "buffer_device: cpu\n  lease_s: 31"),
        ("prefill: {}", "prefill: {dp_size: 2}"),
    ],
)
def test_any_other_value_changes_the_digest(old: str, new: str) -> None:
    assert parse(edited(old, new), Recipe, source="a").digest != parse(SMALL, Recipe, source="a").digest


def test_values_that_differ_differ_in_the_digest_too() -> None:
    digests = {
        parse(edited("version: 0.32.0", f"version: 0.32.0\n  flags: {{a: {value}}}"), Recipe, source="a").digest
        for value in ("1", "'1'", "true", "1.5", "null", "[1]", "{x: 1}")
    }
    assert len(digests) == 7


def test_the_json_schema_describes_every_field_for_an_editor() -> None:
    schema = Recipe.model_json_schema()
    assert schema["properties"]["baton"]["const"] == 1
    assert schema["additionalProperties"] is False
    assert set(schema["required"]) == {"baton", "name", "model", "engine", "hardware", "kv_transfer", "roles"}
    assert schema["$defs"]["Pool"]["properties"]["dp_size"]["exclusiveMinimum"] == 0


YAML_PIECES = st.sampled_from([
    *SMALL.splitlines(), "  - x", "? [1]", ": 2", "a: &a [*a]", "<<: *a", "!!set {x}", "x: !!binary aGk=", "'", '"',
    "{", "}", "[", "]", "%YAML 1.1", "---", "...", "x: 2001-01-01", "x: .nan", "x: 1e999", "x: !!int y", "\t", "x: |",
    "  y",
    "!!omap", "!!set", "!!pairs [a: 1]", "!!seq", "!!map", "!!omap [0: ]", "x: !!timestamp", "&a b: c",
    "x: *a", "!foo bar: 1", "x: 12:30:45", "name:", "model: {name: m}",
    "1: 2", "null: 3", "!!omap [a: 1]",
])  # fmt: skip
TEXTS = st.one_of(
    st.text(max_size=200),
    st.lists(YAML_PIECES, max_size=25).map("\n".join),
    st.tuples(st.integers(0, len(SMALL)), st.integers(0, 30), st.text(max_size=10)).map(
        lambda cut: SMALL[: cut[0]] + cut[2] + SMALL[cut[0] + cut[1] :]
    ),
    st.tuples(st.integers(0, 15), YAML_PIECES).map(
        lambda at: "\n".join([*SMALL.splitlines()[: at[0]], at[1], *SMALL.splitlines()[at[0] :]])
    ),
)


@settings(max_examples=300, deadline=None)
@given(TEXTS)
def test_any_text_ends_in_a_recipe_or_a_config_error(text: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", YAMLWarning)
        try:
            outcome: Any = parse(text, Recipe, source="any.yaml").digest
        except ConfigError as error:
            outcome = str(error)
        assert outcome.startswith("any.yaml") or len(outcome) == 64


@pytest.mark.parametrize(
    ("gateway", "expected"),
    [
        ("{api_keys: {}}", "give `secret` (in a cluster) or `file` (on this machine), or both"),
        ("{api_keys: keys.yaml}", "gateway.api_keys: got 'keys.yaml': expected a mapping"),
        ("{api_keys: {secret: Not_A_Name}}", "gateway.api_keys.secret: got 'Not_A_Name'"),
        ("{api_keys: {secret: a, key: ../x}}", "gateway.api_keys.key: got '../x'"),
        ("{ttft_deadline_s: -1}", "gateway.ttft_deadline_s: got -1"),
        ("{ttft_deadline_s: .inf}", "gateway.ttft_deadline_s: got inf"),
        ("{hold_s: -0.1}", "gateway.hold_s: got -0.1"),
        ("{max_queued: 0}", "gateway.max_queued: got 0"),
        ("{processes: 0}", "gateway.processes: got 0"),
        ("{processes: 257}", "gateway.processes: got 257"),
        ("{exact_prefixes: 1}", "gateway.exact_prefixes: got 1"),
    ],
)
def test_what_no_gateway_can_be_told_is_refused_by_its_field(gateway: str, expected: str) -> None:
    assert expected in error_of(f"{SMALL}gateway: {gateway}\n")
