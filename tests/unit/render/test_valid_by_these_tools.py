"""The tests' own stand-ins do what the real thing does: Kubernetes' expansion of words, and programs that record."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from support import kubelet
from support.any_recipe import NASTY, TEXT
from support.recorder import Recorder

from baton.render.environment import literal

ENV = {"A": "1", "B": "$(A)"}


@pytest.mark.parametrize(
    ("text", "seen"),
    [
        ("$(A)", "1"), ("a$(A)b$(A)", "a1b1"), ("$(B)", "$(A)"), ("$(C)", "$(C)"), ("$$(A)", "$(A)"), ("$$$(A)", "$1"),
        ("$$$$", "$$"), ("$", "$"), ("a$", "a$"), ("$A", "$A"), ("${A}", "${A}"), ("$(", "$("), ("$(A", "$(A"),
        ("$()", "$()"), ("$($(A)", "$($(A)"), ("$(A\n)", "$(A\n)"), ("$\u00e9", "$\u00c3\udca9"),
    ],
)  # fmt: skip
def test_words_are_expanded_as_kubernetes_does(text: str, seen: str) -> None:
    """Its own table of cases, and its fault with a `$` before what is not ASCII."""
    assert kubelet.expand(text, ENV) == seen


@given(TEXT)
def test_a_literal_comes_through(text: str) -> None:
    assert kubelet.expand(literal(text), {**ENV, "EVIL": "x", "": "y"}) == text


def test_a_variable_sees_those_before_it() -> None:
    container = {
        "env": [
            {"name": "A", "value": "$(B)$(Z)"},
            {"name": "B", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
            {"name": "C", "value": "$(B)$(Z)"},
        ],
        "command": ["x", "$(A)"],
        "args": ["$(C)"],
    }
    env = kubelet.environment(container, {"status.podIP": "10.0.0.7"}, {"Z": "z"})
    assert env == {"Z": "z", "A": "$(B)z", "B": "10.0.0.7", "C": "10.0.0.7z"}
    assert kubelet.words(container, env) == ["x", "$(B)z", "10.0.0.7z"]


def test_a_program_records_exactly_what_it_is_given(tmp_path: Path) -> None:
    words = [word for word in NASTY if len(word) < 1000]
    got = Recorder(tmp_path, ["vllm"]).run(["sh", "-c", 'exec "$@"', "sh", "vllm", *words], {"A": "a\nb=c"})
    assert got.words == ["vllm", *words]
    assert got.env["A"] == "a\nb=c"


@pytest.mark.parametrize("script", ["vllm; touch EVIL", "vllm >EVIL", "vllm; echo said", "vllm; false"])
def test_a_word_that_is_read_as_shell_is_noticed(tmp_path: Path, script: str) -> None:
    with pytest.raises(AssertionError):
        Recorder(tmp_path, ["vllm"]).run(["sh", "-c", script], {})
