"""The extractor on a package small enough to read."""

import zipfile
from pathlib import Path
from typing import Any

import pytest
from unit.catalogue.mini import FILES, mini_vllm

from baton.base.errors import ConfigError
from baton.catalogue.extract import __main__ as program
from baton.catalogue.extract import vllm
from baton.catalogue.extract.__main__ import build, main
from baton.catalogue.extract.output import render
from baton.catalogue.extract.sources import Sources


@pytest.fixture(scope="module")
def found() -> dict[str, Any]:
    return vllm.extract(mini_vllm())


def test_flags_are_those_the_parser_would_have(found: dict[str, Any]) -> None:
    """Positional arguments are no flags; a flag under an unknown condition is one."""
    assert sorted(found["flags"]) == [
        "--backend", "--block-size", "--devices", "--enable-log", "--folded", "--headless", "--host", "--origins",
        "--port", "--prefix-caching", "--spec", "--spec-config",
    ]  # fmt: skip


def test_a_flag_has_type_default_choices_aliases_and_negation(found: dict[str, Any]) -> None:
    """Each comes from the field's annotation and default, as changed before the flag is added."""
    flags = found["flags"]
    assert flags["--block-size"] == {
        "type": "int", "optional": True, "default": None, "aliases": ["-bs"], "group": "CacheConfig",
    }  # fmt: skip
    assert flags["--backend"]["choices"] == ["fast", "plain"]
    assert flags["--backend"]["default"] == "plain"
    assert flags["--prefix-caching"] == {"type": "bool", "negation": True, "default": None, "group": "CacheConfig"}
    assert flags["--headless"] == {"type": "bool", "bare": True, "default": False, "frontend": True}
    assert flags["--origins"] == {"type": "json", "default": ["*"], "group": "Front", "frontend": True}
    assert flags["--port"]["default"] == 8000
    assert flags["--folded"] == {
        "type": "str", "folded": True, "choices": ["a_b"], "default": "a_b", "group": "CacheConfig",
    }  # fmt: skip
    assert flags["--enable-log"]["default"] is False


def test_choices_that_depend_on_the_machine_are_known_values_not_choices(found: dict[str, Any]) -> None:
    """What the machine adds is unknown, so nothing is enforced."""
    assert found["flags"]["--devices"]["known"] == ["auto"]
    assert "choices" not in found["flags"]["--devices"]


def test_keys_of_config_flags(found: dict[str, Any]) -> None:
    """A config class gives its keys, less those nobody may pass; JSON for a flag named like a class is that class's."""
    assert found["flags"]["--spec"]["config"] == found["flags"]["--spec-config"]["config"] == "SpecConfig"
    keys = found["configs"]["SpecConfig"]
    assert sorted(keys) == ["kind", "method", "num_tokens"]
    assert keys["method"] == {"type": "str", "optional": True, "default": None, "choices": ["mtp", "ngram"]}
    assert keys["num_tokens"]["default"] == 3
    assert keys["num_tokens"]["deprecated"] == "[DEPRECATED] Guess less. Use `depth` instead."
    assert keys["kind"] == {"type": "str", "default": "FAST", "known": ["FAST", "SLOW"]}


def test_environment_variables(found: dict[str, Any]) -> None:
    """Names are the table's; what only running the code would tell is given as its source."""
    assert found["envs"] == {
        "VLLM_PLAIN": {"type": "int", "default": 60},
        "VLLM_HOME": {"type": "str", "default_source": "os.path.expanduser('~')"},
        "VLLM_MODE": {"type": "str", "default": "a", "choices": ["a", "b"]},
        "VLLM_ELSEWHERE": {"type": "str", "unlisted": True},
        "VLLM_BARE": {"type": "bool", "default": False},
        "VLLM_CHOICE": {
            "type": "str", "default": "x", "choices": ["x", "y"], "any_case": True,
            "deprecated": "Deprecated: use --backend.",
        },
    }  # fmt: skip


def test_names(found: dict[str, Any]) -> None:
    """Connectors are what is registered, architectures the keys of the table."""
    assert found["enums"] == {"kv_connector": ["OneConnector", "TwoConnector"], "architecture": ["One", "Two"]}


def test_a_package_that_moved_its_flags_is_refused() -> None:
    """A place the program does not know is an error, never an empty catalogue."""
    with pytest.raises(ValueError, match="no make_arg_parser"):
        vllm.extract(Sources({k: v for k, v in FILES.items() if "cli_args" not in k}))


def test_nothing_of_the_package_runs(tmp_path: Path) -> None:
    """Statements with effects are text."""
    mark = tmp_path / "ran"
    effect = f'import pathlib\npathlib.Path({str(mark)!r}).touch()\nprint(__import__("os").system("true"))\n'
    files = {k: effect + v for k, v in FILES.items()}
    assert sorted(vllm.extract(Sources(files))["flags"]) == sorted(vllm.extract(mini_vllm())["flags"])  # type: ignore[arg-type]
    assert not mark.exists()


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    path = tmp_path / "vllm-1.2.3-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as file:
        for name, text in FILES.items():
            file.writestr(name, text)
        file.writestr("vllm-1.2.3.dist-info/METADATA", "Name: vllm\nVersion: 1.2.3+cpu\n")
    return path


def test_a_rebuild_gives_the_same_bytes(wheel: Path, tmp_path: Path) -> None:
    """One command writes the file; the second writes it again."""
    texts = []
    for folder in (tmp_path / "a", tmp_path / "b"):
        folder.mkdir()
        assert main(["vllm", "1.2.3", "--wheel", str(wheel), "--into", str(folder)]) == 0
        texts.append((folder / "vllm-1.2.3.json").read_bytes())
    assert texts[0] == texts[1]
    assert str(tmp_path).encode() not in texts[0]


def test_all_is_rebuilt_by_one_command(
    wheel: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With --check it only compares; without, it mends what differs."""
    monkeypatch.setattr(program, "CACHE", wheel.parent)
    folder = tmp_path / "engines"
    folder.mkdir()
    (folder / "vllm-1.2.3.json").write_text("{}")
    assert main(["all", "--into", str(folder), "--check"]) == 1
    assert (folder / "vllm-1.2.3.json").read_text() == "{}"
    assert main(["all", "--into", str(folder)]) == 0
    assert main(["all", "--into", str(folder), "--check"]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "vllm-1.2.3.json: differs",
        "vllm-1.2.3.json: rebuilt",
        "vllm-1.2.3.json: the same",
    ]


@pytest.mark.parametrize("given", [["all", "1.2.3"], ["vllm"], ["vllm", "1.2.3", "--check"]])
def test_half_a_command_is_refused(given: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(given)
    assert "give `vllm VERSION` or `dynamo VERSION`" in capsys.readouterr().err


def test_a_wheel_of_another_version_is_refused(wheel: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The version in the wheel counts, not the one asked for; what is no wheel is said to be none."""
    with pytest.raises(ConfigError, match=r"is version 1\.2\.3\+cpu, not 1\.2\.4"):
        build("vllm", "1.2.4", wheel)
    other = tmp_path / "text.whl"
    other.write_text("no wheel")
    assert main(["vllm", "1.2.3", "--wheel", str(other)]) == 2
    assert "is not a wheel" in capsys.readouterr().err


def test_one_entry_a_line_and_sorted() -> None:
    """A version's diff against the next is readable."""
    text = render({"version": "1"}, {"b": {"y": 1, "x": [1, 2]}, "a": {}})
    assert text == '{\n "format": 1,\n "version": "1",\n "a": {},\n "b": {\n  "x": [1,2],\n  "y": 1\n }\n}\n'
