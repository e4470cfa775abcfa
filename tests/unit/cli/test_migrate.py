"""`baton migrate` as a person runs it: the file rewritten in one step, or left as it was and a reason given."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from baton.base.errors import ConfigError
from baton.cli.migrate import migrate

OLD = "#!/bin/bash\n# tuned\npip install vllm==0.11.0\nvllm serve m \\\n  --swap-space 4 \\\n  --max-num-seqs 3\n"
NEW = "#!/bin/bash\n# tuned\npip install vllm==0.33.0\nvllm serve m \\\n  --max-num-seqs 3\n"


def baton(*args: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "baton", "migrate", *args],
        capture_output=True,
        text=True,
        check=False,
        cwd=cwd,
        env={**os.environ, "NO_COLOR": "1"},
        encoding="utf-8",
    )


@pytest.fixture
def script(tmp_path: Path) -> Path:
    """A script of an old release."""
    path = tmp_path / "serve.sh"
    path.write_text(OLD)
    return path


def run(path: Path, to: str = "vllm-0.33", dry_run: bool = False) -> None:
    migrate(path, to=to, dry_run=dry_run)


def test_a_file_is_moved_and_every_change_said(script: Path) -> None:
    done = baton("serve.sh", "--to", "vllm-0.33", cwd=script.parent)
    assert (done.returncode, done.stderr) == (0, "")
    assert script.read_text() == NEW
    assert done.stdout == (
        "serve.sh:3: 0.11.0 is now 0.33.0\n"
        "    because the move to vllm 0.33.0\n"
        "serve.sh:5: remove --swap-space (It had no effect in the V1 engine)\n"
        "    because vLLM 0.33.0 has no flag --swap-space any more (vllm took it up to vLLM 0.17.1, gone in 0.18.1)\n"
        "    see https://github.com/vllm-project/vllm/pull/36216\n"
        "2 changes, nothing left for you\n"
    )
    again = baton("serve.sh", "--to", "vllm-0.33", cwd=script.parent)
    assert (again.returncode, again.stdout) == (0, "no changes, nothing left for you\n")


def test_what_is_left_is_said_and_fails(script: Path) -> None:
    """Exit 1 for an error; what was wrong before is only counted."""
    script.write_text(OLD.replace("--max-num-seqs 3", "--rope-theta 5 --no-such-flag 3"))
    done = baton("serve.sh", "--to", "vllm-0.33", cwd=script.parent)
    assert done.returncode == 1
    assert (
        "serve.sh:5:3: left for you: error[removed-flag]: vLLM 0.33.0 has no flag --rope-theta any more\n"
        in done.stdout
    )
    assert done.stdout.endswith(
        "2 changes, 1 left for you\n1 more that the move does not touch: see baton check serve.sh\n"
    )


def test_dry_run_prints_the_difference(script: Path) -> None:
    done = baton("serve.sh", "--to", "vllm-0.33", "--dry-run", cwd=script.parent)
    assert done.returncode == 0
    assert script.read_text() == OLD
    assert "-pip install vllm==0.11.0\n+pip install vllm==0.33.0\n" in done.stdout
    assert done.stdout.startswith("--- serve.sh\n+++ serve.sh on vllm-0.33\n")


REFUSED = [
    # what the file holds (None: there is none), release, words of the error
    (None, "vllm-0.33", "cannot read it: No such file or directory"),
    (b"\xff\xfe", "vllm-0.33", "not UTF-8 text"),
    (OLD.encode(), "vllm-7.0", "--to 'vllm-7.0': the catalogue has vllm 0.11.0"),
    (OLD.encode(), "0.33", "--to '0.33': give vllm-VERSION"),
    (OLD.encode(), "dynamo-1.6.1", "give --to vllm-VERSION"),
    (b"python3 -m dynamo.vllm --model m\n", "vllm-0.33", "1.6.1 has 0."),
    (b"echo hello\n", "vllm-0.33", "nothing to migrate"),
]


@pytest.mark.parametrize(("content", "to", "words"), REFUSED)
def test_what_cannot_be_used_is_refused_in_one_line(tmp_path: Path, content: bytes | None, to: str, words: str) -> None:
    if content is not None:
        (tmp_path / "f.sh").write_bytes(content)
    done = baton("f.sh", "--to", to, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert content is None or (tmp_path / "f.sh").read_bytes() == content


def test_line_ends_and_byte_order_mark_stay(tmp_path: Path) -> None:
    path = tmp_path / "pod.yaml"
    text = (
        "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec:\n  containers:\n    - name: c\n"
        "      image: vllm/vllm-openai:v0.11.0\n"
        "      args:\n        - --model=m\n        - --swap-space\n        - '4'\n"
        "      env:\n        - name: VLLM_ATTENTION_BACKEND\n          value: FLASHMLA\n"
    )
    path.write_bytes(b"\xef\xbb\xbf" + text.replace("\n", "\r\n").encode())
    run(path)
    new = text.replace("v0.11.0", "v0.33.0").partition("        - --swap")[0]
    new += "        - --attention-backend\n        - FLASHMLA\n"
    assert path.read_bytes() == b"\xef\xbb\xbf" + new.replace("\n", "\r\n").encode()


def test_link_and_permissions_stay(script: Path) -> None:
    script.chmod(0o750)
    link = script.parent / "link.sh"
    link.symlink_to(script.name)
    run(link)
    assert link.is_symlink()
    assert script.read_text() == NEW
    assert stat.S_IMODE(script.stat().st_mode) == 0o750


def test_a_file_that_needs_no_change_is_not_written(script: Path) -> None:
    script.write_text(NEW)
    before = script.stat()
    run(script)
    assert (script.stat().st_ino, script.stat().st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def test_a_folder_that_cannot_be_written_is_a_clear_error(script: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> tuple[int, str]:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(tempfile, "mkstemp", refuse)
    with pytest.raises(ConfigError, match="cannot write beside it: Permission denied; the file is as it was"):
        run(script)
    assert script.read_text() == OLD


@pytest.mark.parametrize(
    ("raised", "seen"), [(KeyboardInterrupt(), KeyboardInterrupt), (OSError(28, "No space left"), ConfigError)]
)
def test_a_write_that_is_broken_off_leaves_the_old_file(
    script: Path, monkeypatch: pytest.MonkeyPatch, raised: BaseException, seen: type[BaseException]
) -> None:
    def stop(*_: object) -> None:
        raise raised

    monkeypatch.setattr(Path, "replace", stop)
    with pytest.raises(seen):
        run(script)
    assert script.read_text() == OLD
    assert [path.name for path in script.parent.iterdir()] == ["serve.sh"]


def test_what_the_file_asks_to_be_left_alone_is_left_alone(script: Path) -> None:
    kept = OLD.replace(
        "vllm serve m", "# baton: ignore[removed-flag] a build of ours takes it\nvllm serve m --swap-space 4"
    )
    kept = kept.replace("  --swap-space 4 \\\n", "")
    script.write_text(kept)
    run(script)
    assert script.read_text() == kept.replace("0.11.0", "0.33.0")
