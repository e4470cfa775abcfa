"""An abbreviation that several flags begin with.

The engine's parser completes the beginning of a flag, but only if one flag begins so; else it stops: `ambiguous
option: --max-n could match ...`, exit code 2. An abbreviation that worked for years does so from the release on in
which a second flag of that beginning comes.

Write the flag in full.
"""

from __future__ import annotations

from collections.abc import Iterator

from baton.catalogue.engine import EngineCatalogue
from baton.check.bundle import Bundle
from baton.check.commands import values
from baton.check.facts import absent
from baton.check.finding import Finding, Fix, Harm

HARM = Harm.NOT_STARTING
SEE = ()
FIRES = """\
#!/bin/bash
docker run vllm/vllm-openai:v0.32.0 --model m --max-num 16
"""
SILENT = """\
#!/bin/bash
docker run vllm/vllm-openai:v0.32.0 --model m --max-num-seqs 16
"""


def check(bundle: Bundle) -> Iterator[Finding]:
    """Yield a finding for every option that is the beginning of several flags, whichever release runs."""
    for launch in bundle.launches:
        for option in launch.options:
            if option.name or not option.written.is_known:
                continue
            written = option.written.value.split(".")[0]
            meant = [_meant(catalogue, written) for catalogue in launch.version.catalogues]
            if len(meant[-1]) > 1 and all(len(flags) != 1 for flags in meant):
                could = values.listed(meant[-1], 6)
                yield Finding(
                    span=option.written.span,
                    message=f"{written} is ambiguous in {launch.version.name}: it could be {could}",
                    evidence=(f"the parser exits where several flags begin so; {absent.release(launch)}",),
                    fix=Fix(f"write the one you mean in full: {could}"),
                )


def _meant(catalogue: EngineCatalogue, written: str) -> tuple[str, ...]:
    """The flags that begin so, each under the name that begins so."""
    found: dict[str, str] = {}
    for option in catalogue.abbreviated(written):
        match = catalogue.flag(option)
        if match is not None:
            found.setdefault(match.name, option)
    return tuple(found.values())
