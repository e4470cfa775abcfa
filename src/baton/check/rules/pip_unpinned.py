"""A package installed at start-up without a version.

A container that runs `pip install` takes the newest release of the day, every time it starts. A release that drops a
command or a flag breaks a manifest nobody has touched, and at three in the morning, when a pod is moved.

Pin each package (`huggingface_hub==1.11.0`), or build an image that has them.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from baton.check.bundle import Bundle
from baton.check.finding import Finding, Fix, Harm
from baton.check.shell.script import Word

HARM = Harm.FRAGILE
SEE = ()
_POD = """\
apiVersion: v1
kind: Pod
metadata: {name: tools}
spec:
  containers:
    - name: tools
      image: python:3.12-slim
      command: [sh, -c]
      args: ["pip install %s && sleep 3600"]
"""
FIRES = _POD % "huggingface_hub"
SILENT = _POD % "huggingface_hub==1.11.0"
_INSTALLERS = re.compile(r"(?:.*/)?pip3?(?:\.\d+)?")
_UNPINNED = re.compile(r"(?P<name>[A-Za-z0-9][\w.-]*)(?:\[[^\]]*\])?(?:>=?[^,<=]*)?")
_WITH_VALUE = ("-r", "--requirement", "-c", "--constraint", "-i", "--index-url", "--extra-index-url", "-f")
_FILES = ("-r", "--requirement", "-c", "--constraint")
_FOLDERS = ("-t", "--target", "--prefix", "--root", "-e", "--editable", "--find-links", "--cache-dir", "--python")
_OF_PIP = ("pip", "setuptools", "wheel", "uv")


def check(bundle: Bundle) -> Iterator[Finding]:
    """Yield a finding for every install in a container that names packages without versions."""
    for invocation in bundle.invocations:
        if invocation.container is None:
            continue
        packages = _unpinned(invocation.command.words)
        if packages:
            names = ", ".join(word.value for word in packages)
            yield Finding(
                span=packages[0].span.to(packages[-1].span)
                if packages[0].span.source is packages[-1].span.source
                else packages[0].span,
                message=f"pip installs {names} without a version, each time the container starts",
                evidence=("pip takes the newest release of the day",),
                fix=Fix(f"pin: {' '.join(f'{word.value}==VERSION' for word in packages)}"),
            )


def _unpinned(words: tuple[Word, ...]) -> list[Word]:
    values = [word.value for word in words]
    at = next((i for i in range(len(values) - 1) if _is_install(values[i], values[i + 1])), None)
    if at is None or any(name in _FILES for name in values[at:]):
        return []
    found, rest = [], list(words[at + 2 :])
    while rest:
        word = rest.pop(0)
        if word.value in _WITH_VALUE or word.value in _FOLDERS:
            rest = rest[1:]
            continue
        match = _UNPINNED.fullmatch(word.value)
        if word.is_known and match is not None and match["name"] not in _OF_PIP and not word.value.endswith(".whl"):
            found.append(word)
    return found


def _is_install(program: str, verb: str) -> bool:
    return verb == "install" and _INSTALLERS.fullmatch(program) is not None
