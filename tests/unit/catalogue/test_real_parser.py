"""The static extraction against the parser of the vLLM installed here: an extraction error shows as a difference."""

import importlib.metadata
import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from msgspec import UNSET

from baton.catalogue.engine import EngineCatalogue, load_engine

pytestmark = [
    pytest.mark.torch,
    pytest.mark.skipif(
        importlib.util.find_spec("vllm") is None, reason="vLLM is not installed: pip install 'baton[local]'"
    ),
]
DUMP = """
import importlib, json, pkgutil, sys
from vllm.utils.argparse_utils import FlexibleArgumentParser
for name in ("launchers.cli_args", "common.cli_args", "openai.cli_args"):
    try:
        make = importlib.import_module("vllm.entrypoints." + name).make_arg_parser
        break
    except ImportError:
        pass
def plain(value):
    try:
        return json.loads(json.dumps(value))
    except TypeError:
        return sorted(value) if isinstance(value, set) else {"object": type(value).__name__}
parser = make(FlexibleArgumentParser())
actions = [
    {"options": a.option_strings, "choices": plain(a.choices and list(a.choices)), "default": plain(a.default),
     "nargs": a.nargs, "kind": type(a).__name__}
    for a in parser._actions if a.option_strings and a.dest != "help"
]
longs = [o for a in actions for o in a["options"] if o.startswith("--")]
prefixes = {o[:n] for o in longs for n in (len(o) - 1, len(o) // 2, 6) if n > 2}
found = {p: sorted(t[1] for t in parser._get_option_tuples(p)) for p in sorted(prefixes)}
import vllm.envs
envs = sorted(vllm.envs.environment_variables)
json.dump({"actions": actions, "envs": envs, "prefixes": found}, open(sys.argv[1], "w"))
"""


@pytest.fixture(scope="module")
def ours() -> EngineCatalogue:
    return load_engine("vllm", importlib.metadata.version("vllm").split("+")[0])


@pytest.fixture(scope="module")
def real(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    path: Path = tmp_path_factory.mktemp("parser") / "actions.json"
    subprocess.run([sys.executable, "-c", DUMP, str(path)], check=True, capture_output=True, timeout=300)
    dumped: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return dumped


def test_option_strings_are_the_same(ours: EngineCatalogue, real: dict[str, Any]) -> None:
    """Flags, aliases and negations: none missing, none too many."""
    assert set(ours.options) == {o for a in real["actions"] for o in a["options"]}


def test_choices_are_the_same(ours: EngineCatalogue, real: dict[str, Any]) -> None:
    """Where they are static; what the machine adds is among the known values' company."""
    for action in real["actions"]:
        found = ours.flag(action["options"][0])
        assert found is not None
        choices = [c for c in action["choices"] or [] if c is not None]
        if found.flag.choices or not found.flag.known:
            assert list(found.flag.choices) == choices, found.name
        elif choices:
            assert set(found.flag.known) <= set(choices), found.name


def test_defaults_are_the_same(ours: EngineCatalogue, real: dict[str, Any]) -> None:
    """Where they are static: objects of config classes and suppressed ones have none in the catalogue."""
    for action in real["actions"]:
        found = ours.flag(action["options"][0])
        assert found is not None
        default, name = action["default"], found.name
        if isinstance(default, dict) and (default.keys() == {"object"} or found.flag.type == "config"):
            assert found.flag.default is UNSET or not found.flag.config, name
        elif default == "==SUPPRESS==":
            assert found.flag.default is UNSET, name
        else:
            assert found.flag.default == default, name


def test_values_are_taken_alike(ours: EngineCatalogue, real: dict[str, Any]) -> None:
    """As many of them, and bare flags bare."""
    for action in real["actions"]:
        found = ours.flag(action["options"][0])
        assert found is not None
        flag, kind = found.flag, action["kind"]
        assert (kind == "BooleanOptionalAction") == flag.negation, found.name
        assert (kind in {"_StoreTrueAction", "_StoreFalseAction"}) == flag.bare, found.name
        assert (kind == "_AppendAction") == flag.repeats, found.name
        if not (flag.negation or flag.bare):
            assert flag.nargs == action["nargs"], found.name


def test_abbreviations_are_the_same(ours: EngineCatalogue, real: dict[str, Any]) -> None:
    """A beginning of a flag stands for what argparse takes it for; --help alone is not in the catalogue."""
    assert len(real["prefixes"]) > 500
    for prefix, options in real["prefixes"].items():
        assert list(ours.abbreviated(prefix)) == [o for o in options if o != "--help"], prefix


def test_variables_are_the_same(ours: EngineCatalogue, real: dict[str, Any]) -> None:
    """None missing, none too many, those apart that the table lacks."""
    assert sorted(n for n, v in ours.envs.items() if not v.unlisted) == real["envs"]
