"""`baton check` as a person, a hook and a pipe run it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from ruamel.yaml import YAML

from baton.base.errors import ConfigError
from baton.cli.check import files_of

ROOT = Path(__file__).parents[3]
FAULTY = "vllm serve m --no-such-flag 3\n"
SOUND = "vllm serve m --max-num-seqs 3\n"
UNRELATED = "name: ci\non: [push]\njobs:\n  test: {runs-on: ubuntu, steps: [{run: make}]}\n"


def baton(*args: str, cwd: Path, stdin: str = "", **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "baton", *args],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env={**os.environ, "NO_COLOR": "1", **env},
        encoding="utf-8",
    )


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A faulty script, a sound one, and YAML of something else."""
    (tmp_path / "faulty.sh").write_text(FAULTY)
    (tmp_path / "sound.sh").write_text(SOUND)
    (tmp_path / "ci.yaml").write_text(UNRELATED)
    return tmp_path


def test_a_fault_is_shown_and_fails(folder: Path) -> None:
    """Exit 1, the place first, the count last."""
    done = baton("check", "faulty.sh", "sound.sh", "--engine", "vllm-0.22.1", cwd=folder)
    assert (done.returncode, done.stderr) == (1, "")
    assert done.stdout.startswith("error[unknown-flag]: ")
    assert " --> faulty.sh:1:14\n" in done.stdout
    assert "2 engines in 2 files, vllm: vLLM 0.22.1, from --engine\n" in done.stdout
    assert done.stdout.endswith("1 error in 2 files\n")


def test_fail_on_chooses_the_exit_code(folder: Path) -> None:
    """From never to the least note."""
    (folder / "note.sh").write_text("# baton: ignore[unknown-flag] nothing is wrong here\n" + SOUND)
    (folder / "warning.sh").write_text("# baton: ignore[unknown-flag]\n" + SOUND)

    def code(name: str, fail_on: str) -> int:
        return baton("check", name, "--fail-on", fail_on, cwd=folder).returncode

    assert [code("faulty.sh", level) for level in ("never", "error")] == [0, 1]
    assert [code("warning.sh", level) for level in ("error", "warning")] == [0, 1]
    assert [code("note.sh", level) for level in ("warning", "note")] == [0, 1]


def test_ignored_faults_do_not_fail(folder: Path) -> None:
    """They are counted."""
    (folder / "known.sh").write_text("# baton: ignore[unknown-flag] a build of ours has it\n" + FAULTY)
    done = baton("check", "known.sh", cwd=folder)
    assert done.returncode == 0
    assert done.stdout.endswith("1 note in 1 file (1 ignored)\n")


def test_files_without_anything_to_check_pass(folder: Path) -> None:
    """A hook is given all the YAML there is."""
    (folder / "empty.yaml").write_text("")
    (folder / "bytes.yaml").write_bytes(b"\xff\xfe\x00")
    assert baton("check", "ci.yaml", "empty.yaml", cwd=folder).returncode == 0
    assert "Traceback" not in baton("check", "bytes.yaml", cwd=folder).stderr


def test_json_and_sarif(folder: Path) -> None:
    """The short spelling is the long one; nothing else is on standard output."""
    short, long = (baton("check", "faulty.sh", *how, cwd=folder) for how in (["--json"], ["--format", "json"]))
    assert short.returncode == long.returncode == 1
    assert short.stdout == long.stdout
    assert json.loads(short.stdout)["findings"][0]["code"] == "unknown-flag"
    sarif = baton("check", "faulty.sh", "--sarif", cwd=folder)
    assert json.loads(sarif.stdout)["runs"][0]["results"][0]["ruleId"] == "unknown-flag"


def test_standard_input(folder: Path) -> None:
    """`-` is a file called <stdin>."""
    done = baton("check", "-", "--json", cwd=folder, stdin="#!/bin/sh\n" + FAULTY)
    assert done.returncode == 1
    assert json.loads(done.stdout)["findings"][0]["file"] == "<stdin>"
    assert baton("check", "-", "faulty.sh", cwd=folder).returncode == 2


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["nope.yaml", "faulty.sh", "nor-this.sh"], "no such file: nope.yaml, nor-this.sh"),
        ([], "no file given: `baton check FILE...`, or - for standard input"),
        (["faulty.sh", "--engine", "vllm-0.1.1"], "--engine 'vllm-0.1.1': "),
        (["faulty.sh", "--gpu", "h9000"], "--gpu 'h9000': the catalogue has "),
        (["faulty.sh", "--json", "--sarif"], "--json and --sarif are two formats; give one"),
        (["--explain", "unknown-flg"], "no code 'unknown-flg'; did you mean unknown-flag"),
    ],
)
def test_what_cannot_be_used_exits_with_two(folder: Path, args: list[str], said: str) -> None:
    """One line that says what; nothing is checked."""
    done = baton("check", *args, cwd=folder)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith(f"baton: {said}")


def test_explain(folder: Path) -> None:
    """A page, and the list of all."""
    page = baton("check", "--explain", "unknown-flag", cwd=folder)
    assert page.returncode == 0
    assert page.stdout.startswith("# unknown-flag: ")
    listed = baton("check", "--explain", "all", cwd=folder)
    assert {"unknown-flag", "ignore-comment"} <= {line.split()[1] for line in listed.stdout.splitlines()}


def test_a_folder_means_what_can_be_checked_below_it(tmp_path: Path) -> None:
    """In order, each file once, hidden folders left alone."""
    kept = ["a.yaml", "b/c.YML", "b/d.sbatch", "b/e.slurm", "z.bash", "z.sh"]
    for name in [*kept, "README.md", "x.py", ".git/hook.sh", "b/.venv/x.yaml"]:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    found = [str(path.relative_to(tmp_path)) for path in files_of([str(tmp_path), str(tmp_path / "z.sh")])]
    assert found == ["a.yaml", "z.bash", "z.sh", "b/c.YML", "b/d.sbatch", "b/e.slurm"]
    assert files_of([str(tmp_path / "x.py")]) == [tmp_path / "x.py"]
    (tmp_path / "bare").mkdir()
    with pytest.raises(ConfigError, match=r"no file below it ends in \.yaml, "):
        files_of([str(tmp_path / "bare")])


def test_a_reader_that_leaves_changes_nothing(folder: Path) -> None:
    """`baton check | head -1` ends without a traceback, and with the code of what was found."""
    reading, writing = os.pipe()
    os.close(reading)
    argv = [sys.executable, "-m", "baton", "check", "faulty.sh"]
    done = subprocess.run(argv, stdout=writing, stderr=subprocess.PIPE, text=True, check=False, cwd=folder)
    os.close(writing)
    assert (done.returncode, done.stderr) == (1, "")


def test_any_encoding_of_the_terminal(folder: Path) -> None:
    """What it cannot show is escaped."""
    (folder / "wide.sh").write_text("vllm serve m --大きい 1\n", encoding="utf-8")
    done = baton("check", "wide.sh", cwd=folder, PYTHONIOENCODING="ascii")
    assert (done.returncode, done.stderr) == (1, "")
    assert "--\\u5927" in done.stdout


def test_a_manifest_costs_little(folder: Path) -> None:
    """Only a recipe needs pydantic, only text needs rich, and nothing needs what runs engines."""
    code = (
        "import sys\nfrom pathlib import Path\nfrom baton.check.bundle import read_bundle\n"
        "from baton.check.report.document import to_json\nfrom baton.check.run import check\nimport baton.cli.check\n"
        "assert 'unknown-flag' in to_json(check(read_bundle([Path('faulty.sh'), Path('ci.yaml')])))\n"
        "heavy = {'pydantic', 'rich.console', 'asyncio', 'psutil', 'httptools', 'torch', 'vllm'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=folder)
    assert (done.returncode, done.stderr) == (0, "")


def test_the_hook_is_this_verb() -> None:
    """What pre-commit reads from the repository: the console script, on YAML and shell."""
    (hook,) = YAML(typ="safe").load((ROOT / ".pre-commit-hooks.yaml").read_text())
    assert hook["id"] == "baton-check"
    assert hook["entry"].split() == ["baton", "check"]
    assert hook["language"] == "python"
    assert set(hook["types_or"]) == {"yaml", "shell"}
    assert hook["require_serial"] is True
    assert hook.get("pass_filenames", True) is True
