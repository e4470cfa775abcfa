"""A flag that the release which runs has no more.

The engine's parser stops at a flag it does not know: `unrecognized arguments`, exit code 2, and the pod restarts for
ever. Recipes are copied for years while flags come and go, so this is the commonest fault of all.

Write what took the flag's place; where nothing did, what it controlled is gone and the flag goes too. Where the release
is not known, a flag that the newest lacks is a note.
"""

from __future__ import annotations

from collections.abc import Iterator

from baton.check.bundle import Bundle
from baton.check.commands.arguments import Argument
from baton.check.commands.launch import Launch
from baton.check.edits import fixes, replace
from baton.check.facts import absent, lives, successors
from baton.check.facts.absent import Absence
from baton.check.finding import Finding, Fix, Harm

HARM = Harm.NOT_STARTING
SEE = ("https://github.com/kserve/kserve/issues/6037",)
FIRES = """\
#!/bin/bash
docker run vllm/vllm-openai:v0.32.0 --model m --swap-space 16
"""
SILENT = """\
#!/bin/bash
docker run vllm/vllm-openai:v0.11.0 --model m --swap-space 16
"""


def check(bundle: Bundle) -> Iterator[Finding]:
    """Yield a finding for every option that only earlier releases have."""
    for launch, option, absence in absent.flags(bundle, "gone"):
        yield _finding(launch, option, absence)


def _finding(launch: Launch, option: Argument, absence: Absence) -> Finding:
    name = successors.long_name(option.written.value)
    if not absence.is_sure:
        return Finding(
            span=option.written.span,
            message=f"{launch.engine} has no flag {name} since {absence.life.until if absence.life else 'long'}",
            evidence=(absent.words(launch, absence),),
            fix=successors.if_newer(launch, absence, "flag", name, option.written.value),
            harm=Harm.UNKNOWN,
        )
    fix, instead = replace.option(launch, option)
    return Finding(
        span=option.written.span,
        message=f"{launch.version.name} has no flag {name} any more",
        evidence=(absent.words(launch, absence),),
        fix=fix or Fix(f"remove {name}: nothing took its place", fixes.remove_option(option), is_guess=True),
        see=lives.threads(instead),
    )
