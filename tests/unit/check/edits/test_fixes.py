"""Edits in every carrier: what stands around what is taken out, renamed or put in stays as it is."""

import pytest

from baton.check.bundle import of_sources
from baton.check.commands.launch import Launch
from baton.check.edits import fixes, insertions
from baton.check.finding import Edit
from baton.check.text import Source

HEAD = "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec:\n  containers:\n    - name: c\n"
IMAGE = "      image: vllm/vllm-openai:v0.33.0\n"


def launch(text: str) -> Launch:
    (found,) = of_sources([Source("f.sh" if text.startswith("#!") else "f.yaml", text)]).launches
    return found


def edited(text: str, edits: tuple[Edit, ...]) -> str:
    for edit in sorted(set(edits), key=lambda e: (-e.span.start, -e.span.end)):
        text = text[: edit.span.start] + edit.text + text[edit.span.end :]
    return text


def shell(command: str) -> str:
    return f"#!/bin/bash\n{command}\necho done\n"


def pod(lines: str) -> str:
    return HEAD + IMAGE + lines + "      workingDir: /\n"


REMOVED = [
    # before, after: --seed is taken out
    ("vllm serve m --seed 1", "vllm serve m"),
    ("vllm serve m --seed 1 --enforce-eager", "vllm serve m --enforce-eager"),
    ("vllm serve m --seed=1 --enforce-eager", "vllm serve m --enforce-eager"),
    ("vllm serve m \\\n  --seed 1 \\\n  --enforce-eager", "vllm serve m \\\n  --enforce-eager"),
    ("vllm serve m \\\n  --enforce-eager \\\n  --seed 1", "vllm serve m \\\n  --enforce-eager"),
    ("vllm serve m \\\n  --enforce-eager --seed 1 # same", "vllm serve m \\\n  --enforce-eager # same"),
    ("vllm serve m \\\n  --seed 1 --enforce-eager", "vllm serve m \\\n  --enforce-eager"),
    ('vllm serve m --seed "1" &', "vllm serve m &"),
    ("vllm serve m --seed 1 | tee log", "vllm serve m | tee log"),
    ('bash -c "vllm serve m --seed 1"', 'bash -c "vllm serve m"'),
    ("bash -c 'vllm serve m --seed 1 --enforce-eager'", "bash -c 'vllm serve m --enforce-eager'"),
]


@pytest.mark.parametrize(("before", "after"), REMOVED)
def test_an_option_of_a_script_is_taken_out(before: str, after: str) -> None:
    text = shell(before)
    option = launch(text).given("--seed")
    assert option is not None
    assert edited(text, fixes.remove_option(option)) == shell(after)


REMOVED_ITEMS = [
    (
        "      args:\n        - --model=m\n        # the same each time\n        - --seed\n        - '1'  # one\n",
        "      args:\n        - --model=m\n        # the same each time\n",
    ),
    ("      args: [--model, m, --seed, '1']\n", "      args: [--model, m]\n"),
    ("      args: [--seed, 1, --model, m]\n", "      args: [--model, m]\n"),
    ("      args: [--seed=1, --model, m]\n", "      args: [--model, m]\n"),
    ('      args: ["--model", "m", "--seed=1"]\n', '      args: ["--model", "m"]\n'),
    ('      args:\n        - "--seed=1"\n        - --model=m\n', "      args:\n        - --model=m\n"),
    ("      args:\n        [--model, m,\n         --seed, '1']\n", "      args:\n        [--model, m]\n"),
    (
        "      command: [bash, -c]\n      args:\n        - |\n          vllm serve m \\\n            --seed 1\n",
        "      command: [bash, -c]\n      args:\n        - |\n          vllm serve m\n",
    ),
]


@pytest.mark.parametrize(("before", "after"), REMOVED_ITEMS)
def test_an_option_of_a_manifest_is_taken_out(before: str, after: str) -> None:
    option = launch(pod(before)).given("--seed")
    assert option is not None
    assert edited(pod(before), fixes.remove_option(option)) == pod(after)


def test_what_stands_elsewhere_is_not_taken_out() -> None:
    """A word that a variable brings has its place where the variable is set, and others may use that."""
    option = launch(shell('ARGS="--seed 1"\nvllm serve m $ARGS')).given("--seed")
    assert option is not None
    assert fixes.remove_option(option) == ()


VARIABLES = [
    # before, after: VLLM_X is taken out; "" nothing is offered
    ("export VLLM_X=1\nvllm serve m", "vllm serve m"),
    ("# why\nexport VLLM_X=1 # so\nvllm serve m", "# why\nvllm serve m"),
    ('export VLLM_X="a b"\nvllm serve m', "vllm serve m"),
    ("export VLLM_X=1 A=2\nvllm serve m", "export A=2\nvllm serve m"),
    ("export A=2 VLLM_X=1\nvllm serve m", "export A=2\nvllm serve m"),
    ("export VLLM_X=1; vllm serve m", "vllm serve m"),
    ("export VLLM_X=1 && vllm serve m", "vllm serve m"),
    ("VLLM_X=1 vllm serve m", "vllm serve m"),
    ("A=1 VLLM_X=1 vllm serve m", "A=1 vllm serve m"),
    ("env VLLM_X=1 vllm serve m", "env vllm serve m"),
    ("VLLM_X=1 \\\n  vllm serve m", "  vllm serve m"),
    ("docker run -e VLLM_X=1 vllm/vllm-openai:v0.33.0 --model m", "docker run vllm/vllm-openai:v0.33.0 --model m"),
    (
        "docker run \\\n  --env VLLM_X=1 \\\n  vllm/vllm-openai:v0.33.0 --model m",
        "docker run \\\n  vllm/vllm-openai:v0.33.0 --model m",
    ),
    ("if true; then\n  export VLLM_X=1\nfi\nvllm serve m", ""),
    ("export VLLM_X=1\necho $VLLM_X\nvllm serve m", ""),
    ("VLLM_X=1\nexport VLLM_X\nvllm serve m", ""),
]


@pytest.mark.parametrize(("before", "after"), VARIABLES)
def test_a_variable_of_a_script_is_taken_out(before: str, after: str) -> None:
    text = shell(before)
    start = text.index("VLLM_X=")
    end = start + len("VLLM_X=") + (5 if '"a b"' in text else 1)
    edits = fixes.remove_variable("VLLM_X", Source("f.sh", text).span(start, end))
    assert edited(text, edits) == (shell(after) if after else text)


ITEMS = [
    ("    - name: A\n      value: b # c\n    - name: X\n", "    - name: X\n"),
    ("    - {name: A, value: b}\n    - name: X\n", "    - name: X\n"),
    ("    - name: A\n      value: b\n", None),
    ("    # why\n    - name: A\n      value: b\n    - name: X\n", "    # why\n    - name: X\n"),
    ("    - name: A\n      value: |\n        b\n    - name: X\n", "    - name: X\n"),
]


@pytest.mark.parametrize(("before", "after"), ITEMS)
def test_an_item_goes_with_its_lines_and_an_empty_list_with_its_key(before: str, after: str | None) -> None:
    text = f"  env:\n{before}  other: 1\n"
    start = text.index("name: A")
    end = next(text.index(last) + len(last) for last in ("value: |\n        b\n", "value: b") if last in text)
    wanted = "  other: 1\n" if after is None else f"  env:\n{after}  other: 1\n"
    assert edited(text, fixes.remove_item(Source("f.yaml", text).span(start, end))) == wanted


INSERTED = [
    (shell("vllm serve m --seed 1"), shell("vllm serve m --seed 1 --runner auto")),
    (shell("vllm serve m --seed 1 > log 2>&1 &"), shell("vllm serve m --seed 1 --runner auto > log 2>&1 &")),
    (shell("vllm serve m \\\n  --seed 1"), shell("vllm serve m \\\n  --seed 1 \\\n  --runner auto")),
    (pod("      args: [--model, m]\n"), pod("      args: [--model, m, --runner, auto]\n")),
    (pod("      args: ['--model', 'm']\n"), pod("      args: ['--model', 'm', '--runner', 'auto']\n")),
    (pod("      args:\n      - --model\n      - m # it\n"), None),
    (shell("vllm serve m -- x"), shell("vllm serve m -- x")),
]


@pytest.mark.parametrize(("before", "after"), INSERTED)
def test_a_flag_is_put_behind_the_last_word(before: str, after: str | None) -> None:
    wanted = after or before.replace("m # it\n", "m # it\n      - --runner\n      - auto\n")
    assert edited(before, insertions.option(launch(before), "--runner", "auto")) == wanted


@pytest.mark.parametrize(
    ("json", "path", "after"),
    [
        ('{"a": 1}', ("b",), '{"b": 7, "a": 1}'),
        ('{"a": {"c": 1}}', ("a", "b"), '{"a": {"b": 7, "c": 1}}'),
        ('{"a": {}}', ("a", "b"), '{"a": {"b": 7}}'),
        ('{"x": 1}', ("a", "b"), '{"a": {"b": 7}, "x": 1}'),
        ('{"a": 1}', ("a",), None),
        ("not json", ("a",), None),
    ],
)
def test_a_key_is_put_into_json(json: str, path: tuple[str, ...], after: str | None) -> None:
    text = shell(f"vllm serve m --eplb-config '{json}'")
    option = launch(text).given("--eplb-config")
    assert option is not None
    assert edited(text, insertions.into_json(option, path, "7")) == text.replace(json, after or json)
