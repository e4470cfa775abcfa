"""A flag written by its beginning only.

The engine's parser completes the beginning of a flag while only one flag begins so. Every release brings new flags: as
soon as a second one begins so, the parser stops with `ambiguous option`, exit code 2, and nothing in the manifest has
changed but the image.

Write the flag in full.
"""

from __future__ import annotations

from collections.abc import Iterator

from baton.check.bundle import Bundle
from baton.check.commands import versions
from baton.check.commands.arguments import Argument
from baton.check.commands.launch import Launch
from baton.check.edits import fixes
from baton.check.finding import Finding, Fix, Harm

HARM = Harm.FRAGILE
SEE = ()
FIRES = """\
#!/bin/bash
docker run vllm/vllm-openai:v0.32.0 --model m --tensor-parallel 8
"""
SILENT = """\
#!/bin/bash
docker run vllm/vllm-openai:v0.32.0 --model m --tensor-parallel-size 8
"""


def check(bundle: Bundle) -> Iterator[Finding]:
    """Yield a finding for every option that is one flag's beginning."""
    for launch in bundle.launches:
        for option in launch.options:
            if option.is_abbreviated:
                yield _finding(launch, option)


def _finding(launch: Launch, option: Argument) -> Finding:
    written = option.written.value
    first, dot, path = written.partition(".")
    name = f"--no-{option.name[2:]}" if option.negated else option.name
    return Finding(
        span=option.written.span,
        message=f"{first} is short for {name} only while no other flag begins so",
        evidence=tuple(_evidence(launch, first)),
        fix=Fix(f"write {name}", fixes.rename_option(option, f"{name}{dot}{path}")),
    )


def _evidence(launch: Launch, written: str) -> Iterator[str]:
    known = versions.candidates(launch.engine)
    other = next((c for c in reversed(known) if c.flag(written) is None and c.abbreviated(written)), None)
    if other is not None:
        yield f"in {launch.engine} {other.version} it is ambiguous: {', '.join(other.abbreviated(written)[:6])}"
    elif all(c.flag(written) is not None for c in known):
        yield f"unambiguous in every release from {known[0].version} to {known[-1].version}; nobody promises the next"
