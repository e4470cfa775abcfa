"""Settings for a range of releases: which releases those are, and how they go over a recipe's own."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from baton.recipe.deployment import EngineSpec, resolve
from baton.recipe.era import Era
from baton.recipe.recipe import Recipe, Role


@pytest.mark.parametrize(
    ("version", "held"),
    [
        ("0.10.2", False), ("0.11.0", True), ("0.11", True), ("0.12.0", True), ("0.14.1", True), ("0.14.99", True),
        ("0.14.0rc1", True), ("0.15.0", False), ("0.2.0", False), ("0.1.4", False), ("1.12.0", False),
    ],
)  # fmt: skip
def test_both_ends_of_an_era_are_in_it(version: str, held: bool) -> None:
    assert Era(era="vllm-0.11..0.14").holds(version) is held


def test_an_era_may_be_one_minor_release_or_span_a_major_one() -> None:
    assert Era(era="vllm-0.11..0.11").holds("0.11.2")
    assert Era(era="vllm-0.30..1.2").holds("0.99.0")


@pytest.mark.parametrize(
    "era", ["vllm-0.14..0.11", "vllm-0.14", "0.11..0.14", "vllm-0.11.0..0.14.1", "vllm-0.11..", "vllm-0.11...0.14", ""]
)
def test_what_names_no_releases_is_refused(era: str) -> None:
    with pytest.raises(ValidationError):
        Era(era=era)


def engines(version: str, *eras: dict[str, Any]) -> dict[Role, EngineSpec]:
    recipe = Recipe.model_validate(
        {
            "baton": 1,
            "name": "t",
            "model": {"name": "m", "path": "/m", "dtype": "float32", "max_model_len": 64},
            "engine": {"version": version, "flags": {"a": 1, "b": 1}, "env": {"A": "1", "B": "1"}},
            "hardware": {"accelerator": "cpu"},
            "kv_transfer": {"buffer_device": "cpu"},
            "roles": {"prefill": {"flags": {"b": 2}, "env": {"B": "2"}}, "decode": {}},
            "eras": list(eras),
        }
    )
    return {engine.role: engine for engine in resolve(recipe, Path("/")).engines}


def test_no_era_changes_nothing() -> None:
    found = engines("0.33.0", {"era": "vllm-0.11..0.14", "engine": {"flags": {"a": 9}, "env": {"A": "9"}}})
    assert found[Role.PREFILL].flags == {"a": 1, "b": 2}
    assert found[Role.PREFILL].env == {"A": "1", "B": "2"}
    assert found[Role.DECODE].flags == {"a": 1, "b": 1}


def test_an_era_goes_over_the_engine_and_over_the_role() -> None:
    found = engines(
        "0.14.1",
        {"era": "vllm-0.11..0.14", "engine": {"flags": {"b": 9}, "env": {"B": "9"}}, "decode": {"flags": {"c": 3}}},
    )
    assert found[Role.PREFILL].flags == {"a": 1, "b": 9}
    assert found[Role.PREFILL].env["B"] == "9"
    assert found[Role.DECODE].flags == {"a": 1, "b": 9, "c": 3}


def test_null_takes_a_setting_away() -> None:
    found = engines("0.14.1", {"era": "vllm-0.11..0.14", "prefill": {"flags": {"a": None}, "env": {"A": None}}})
    assert found[Role.PREFILL].flags.get("a") is None
    assert "A" not in found[Role.PREFILL].env
    assert (found[Role.DECODE].flags["a"], found[Role.DECODE].env["A"]) == (1, "1")


def test_of_several_that_fit_the_last_counts() -> None:
    found = engines(
        "0.14.1",
        {"era": "vllm-0.11..0.29", "engine": {"flags": {"a": 8}, "env": {"A": None}}},
        {"era": "vllm-0.14..0.14", "engine": {"flags": {"a": 9}, "env": {"A": "9"}}},
    )
    assert found[Role.DECODE].flags["a"] == 9
    assert found[Role.DECODE].env["A"] == "9"


def test_an_era_says_only_what_a_recipe_may() -> None:
    for settings in ({"flags": {"--a": 1}}, {"env": {"A": 1}}, {"env": {"1A": "1"}}, {"replicas": 2}):
        with pytest.raises(ValidationError):
            Era.model_validate({"era": "vllm-0.11..0.14", "engine": settings})
