"""Commands run by a real shell, with programs in the place of the real ones that write down what they were given."""

from __future__ import annotations

import os
import stat
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_PROGRAM = """\
#!/bin/sh
printf '%s\\0' "${0##*/}" "$@" >"$RECORD_TO/words"
exec env -0 >"$RECORD_TO/environment"
"""


@dataclass(frozen=True, slots=True)
class Recorded:
    """What a program saw: its words, its own name first, and its environment."""

    words: list[str]
    env: dict[str, str]


class Recorder:
    """A folder with programs that record, and one to run commands in, where nothing else may appear."""

    def __init__(self, folder: Path, programs: Sequence[str]) -> None:
        self._bin, self._here, self._record = (folder / name for name in ("bin", "here", "record"))
        for each in (self._bin, self._here, self._record):
            each.mkdir()
        for name in programs:
            program = self._bin / name
            program.write_text(_PROGRAM, encoding="utf-8")
            program.chmod(program.stat().st_mode | stat.S_IXUSR)

    def run(self, words: Sequence[str], env: Mapping[str, str]) -> Recorded:
        """Run a command; an assertion if it fails, says anything, or leaves anything behind."""
        own = {"PATH": f"{self._bin}{os.pathsep}/usr/bin{os.pathsep}/bin", "RECORD_TO": str(self._record)}
        done = subprocess.run(words, env={**env, **own}, cwd=self._here, capture_output=True, check=False, timeout=60)
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
        assert not list(self._here.iterdir()), "a word was read as shell"
        said = dict(entry.split("=", 1) for entry in self._read("environment"))
        return Recorded(self._read("words"), said)

    def _read(self, name: str) -> list[str]:
        return (self._record / name).read_bytes().decode(errors="surrogateescape").split("\0")[:-1]
