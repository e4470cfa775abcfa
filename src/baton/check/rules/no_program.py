"""A container whose command line holds options and no program.

With `command: [bash, -c]` the args are the shell's own until its script comes: to `args: [--model, ...]` bash says
`invalid option`, exit code 2, and the container restarts for ever. A `command` that starts with an option
fails likewise: the runtime looks for an executable of that name.

Put the program first: `command: [python3, -m, dynamo.vllm]` with the options as args, or a whole script after `-c`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from baton.check.bundle import Bundle
from baton.check.finding import Finding, Fix, Harm
from baton.check.kubernetes.manifests import Container

HARM = Harm.NOT_STARTING
SEE = ()
_POD = """\
apiVersion: v1
kind: Pod
metadata: {name: front}
spec:
  containers:
    - name: front
      image: nvcr.io/nvidia/ai-dynamo/vllm-runtime:1.6.1
      command: %s
      args: [--router-mode, kv]
"""
FIRES = _POD % "[/bin/bash, -c]"
SILENT = _POD % "[python3, -m, dynamo.frontend]"
_SHELLS = ("sh", "bash", "dash", "ash", "zsh", "ksh")
_SCRIPT_FOLLOWS = re.compile(r"-[a-zA-Z]*c")
_SHELL_OPTION = re.compile(r"--|[-+][abefhiklmnprtuvxBCEHPT]+")
_OPTION = re.compile(r"--[A-Za-z]")


def check(bundle: Bundle) -> Iterator[Finding]:
    """Yield a finding for every container that can start nothing."""
    for workload in bundle.manifests.workloads:
        for container in workload.pod.containers:
            yield from _findings(container)


def _findings(container: Container) -> Iterator[Finding]:
    command = container.command
    if not command or not command[0].is_known:
        return
    program = command[0].value
    if program.startswith("-"):
        yield Finding(
            span=command[0].span,
            message=f"command starts with the option {program!r}: no executable has that name, and nothing starts",
            evidence=("command takes the place of the image's entry point; options alone belong into args",),
            fix=Fix("put the program first, or write args in the place of command to keep the image's entry point"),
        )
    if program.rsplit("/", maxsplit=1)[-1] not in _SHELLS:
        return
    words = (*command, *(container.args or ()))
    at = next((i for i, word in enumerate(words) if i and _SCRIPT_FOLLOWS.fullmatch(word.value)), None)
    if at is None:
        return
    rest = words[at + 1 :]
    first = next((word for word in rest if not _SHELL_OPTION.fullmatch(word.value)), None)
    if first is None and (not container.node.is_complete or any(not word.is_known for word in rest)):
        return
    if first is None or _OPTION.match(first.value.lstrip()):
        said = "nothing to run" if first is None else f"the option {first.value.split()[0]!r} in the place of a script"
        yield Finding(
            span=(first or words[at]).span,
            message=f"{program} -c is given {said}: no program is started, and the container exits at once",
            evidence=(f"{program} takes what follows -c for options of its own until a script comes",),
            fix=Fix("write the program as command ([python3, -m, dynamo.vllm]) with the options as args"),
        )
