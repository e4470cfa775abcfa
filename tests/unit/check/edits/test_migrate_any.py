"""Any old name in any file: moving it to the newest release does no harm, and ends."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baton.base.errors import ConfigError
from baton.catalogue.engine import load_engine, versions
from baton.catalogue.history import Replacement, of_env, of_flag, of_key, replacements
from baton.check.bundle import of_sources
from baton.check.commands import versions as releases
from baton.check.finding import Harm
from baton.check.migrate import Migration, migrate
from baton.check.run import check, harm_of
from baton.check.text import Source

NEWEST = f"vllm-{versions('vllm')[-1]}"
POD = "apiVersion: v1\nkind: Pod\nmetadata: {name: engine}\nspec:\n  containers:\n    - name: engine\n"


def moved(text: str, name: str, to: str = NEWEST) -> Migration:
    return migrate(Source(name, text), to=to)


KNOWN = [r for r in replacements() if r.kind in ("flag", "env", "key")]
_SAMPLES = {"int": "4", "float": "4", "bool": "true", "config": "{}", "json": "{}"}


def _arguments(old: Replacement) -> tuple[str, str, str]:
    """The engine's last release that has an old name, a value it takes, and how it is written."""
    engine = old.engine
    catalogues = [load_engine(engine, version) for version in versions(engine)]
    if old.kind == "env":
        life = of_env(catalogues, old.name)[-1]
        variable = load_engine(engine, life.last).envs[old.name]
        value = next(iter(variable.choices), None) or next((v for v in old.values if v not in ("", "*")), "1")
        return life.last, "", str(value)
    flag, _, path = old.name.partition(".")
    life = (of_key(catalogues, flag, path) if old.kind == "key" else of_flag(catalogues, flag))[-1]
    setting = load_engine(engine, life.last).flags[flag]
    if old.kind == "key":
        value = "true" if "enable" in path or "use" in path else "0"
        return life.last, f"{old.name} {value}", ""
    if setting.bare or setting.negation:
        return life.last, flag, ""
    value = next((str(v) for v in setting.choices if str(v) in old.values), _SAMPLES.get(setting.type, "auto"))
    return life.last, f"{flag} {value}", ""


@pytest.mark.parametrize("old", KNOWN, ids=lambda r: r.name)
def test_every_name_that_was_replaced_is_moved_or_left_with_words(old: Replacement) -> None:
    """From the last release that had it to the newest: it is gone, or left; nothing worse came."""
    release, arguments, value = _arguments(old)
    package, program = (
        ("vllm", "vllm serve") if old.engine == "vllm" else ("ai-dynamo", "python3 -m dynamo.vllm --model")
    )
    to = f"{'vllm' if old.engine == 'vllm' else 'dynamo'}-{versions(old.engine)[-1]}"
    line = f"export {old.name}={value}\n" if value else ""
    text = f"#!/bin/bash\n{line}pip install {package}=={release}\n{program} m {arguments}\n"
    migration = moved(text, "file.sh", to)
    is_gone = old.name not in migration.text
    codes = {f.code for f in migration.left}
    assert is_gone or codes & {"removed-flag", "removed-env", "unknown-json-key", "deprecated-env"}, migration.text
    errors = [
        f for f in check(of_sources([Source("file.sh", migration.text)])).findings if harm_of(f) <= Harm.NOT_STARTING
    ]
    assert {f.code for f in errors} <= codes


OLD_FLAGS = [_arguments(r)[1] for r in KNOWN if r.kind in ("flag", "key") and r.engine == "vllm"]
OLD_VARIABLES = [(r.name, _arguments(r)[2]) for r in KNOWN if r.kind == "env"]
CARRIERS = ("script", "lines", "list", "flow", "block", "double")


def carried(carrier: str, arguments: list[str], variables: list[tuple[str, str]]) -> tuple[str, str]:
    """A file of one kind that starts vLLM 0.11.0 with arguments and variables."""
    words = " ".join(arguments).split()
    exports = "".join(f"export {name}={value}\n" for name, value in variables)
    if carrier in ("script", "lines"):
        joined = (" \\\n  " if carrier == "lines" else " ").join(["vllm serve m", *arguments])
        return "file.sh", f"#!/bin/bash\n{exports}pip install vllm==0.11.0\n{joined}\n"
    env = "".join(f"        - name: {name}\n          value: '{value}'\n" for name, value in variables)
    env = f"      env:\n{env}" if env else ""
    image = "      image: vllm/vllm-openai:v0.11.0\n"
    if carrier == "list":
        args = "      args:\n" + "".join(f"        - '{word}'\n" for word in ["--model=m", *words])
    elif carrier == "flow":
        args = f"      args: [{', '.join(repr(word) for word in ['--model=m', *words])}]\n"
    else:
        command = " ".join(["vllm serve m", *arguments])
        script = f"        - |\n          {command}\n" if carrier == "block" else f'        - "{command}"\n'
        args = f"      command: [bash, -c]\n      args:\n{script}"
    return "file.yaml", f"{POD}{image}{args}{env}"


@settings(max_examples=40, deadline=None, derandomize=True)
@given(
    st.sampled_from(CARRIERS),
    st.lists(st.sampled_from(OLD_FLAGS), max_size=4, unique=True),
    st.lists(st.sampled_from(OLD_VARIABLES), max_size=3, unique=True),
)
def test_any_old_names_in_any_file_move_without_harm(
    carrier: str, arguments: list[str], variables: list[tuple[str, str]]
) -> None:
    """It ends, what comes out reads, and a second run finds nothing to do."""
    name, text = carried(carrier, arguments, variables)
    migration = moved(text, name)
    read = of_sources([Source(name, migration.text)])
    assert not [fault for file in read.files for fault in file.faults]
    assert [launch.version.stated for launch in read.launches] == [releases.parse_engine(NEWEST)[1]]
    again = moved(migration.text, name)
    assert (again.text, again.changes) == (migration.text, ())


PIECES = (
    "vllm serve m ",
    "--swap-space ",
    "export VLLM_USE_V1=",
    "\n",
    "\\\n",
    "'",
    '"',
    "$X ",
    "1 ",
    "&& ",
    "- ",
    "{",
    "}",
    "# c",
    ", ",
)


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from(PIECES), max_size=14), st.sampled_from(["file.sh", "file.yaml"]))
def test_any_text_is_moved_or_refused(pieces: list[str], name: str) -> None:
    """However broken: a second run finds nothing to do, or there is a clear error."""
    try:
        migration = moved("".join(pieces), name)
    except ConfigError:
        return
    assert moved(migration.text, name).text == migration.text
