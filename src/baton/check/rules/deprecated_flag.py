"""A flag that the release which runs means to drop.

It works today, with a warning in the log. A later release has it no more, and then the engine's parser stops at it:
`unrecognized arguments`, exit code 2.

Write what takes its place now, while both work.
"""

from __future__ import annotations

from collections.abc import Iterator

from baton.catalogue import history
from baton.check.bundle import Bundle
from baton.check.commands import versions
from baton.check.commands.arguments import Argument
from baton.check.commands.launch import Launch
from baton.check.edits import replace
from baton.check.facts import lives
from baton.check.finding import Finding, Fix, Harm

HARM = Harm.FRAGILE
SEE = ()
FIRES = """\
#!/bin/bash
docker run vllm/vllm-openai:v0.12.0 --model m --cuda-graph-sizes 1 2 4
"""
SILENT = """\
#!/bin/bash
docker run vllm/vllm-openai:v0.12.0 --model m --cudagraph-capture-sizes 1 2 4
"""


def check(bundle: Bundle) -> Iterator[Finding]:
    """Yield a finding for every option that is deprecated in all that may run."""
    for launch in bundle.launches:
        for option in launch.options:
            said = [c.flags[option.name].deprecated for c in launch.version.catalogues if option.name in c.flags]
            if said and all(said) and len(said) == len(launch.version.catalogues):
                yield _finding(launch, option, said[-1])


def _finding(launch: Launch, option: Argument, said: str) -> Finding:
    fix, instead = replace.option(launch, option)
    words = f"the engine says: {' '.join(said.split())}"
    name = option.name
    stays = history.lives(versions.candidates(launch.engine), lives.takes(name))
    gone = (f"it is gone in {stays[-1].until}",) if stays and stays[-1].until else ()
    return Finding(
        span=option.written.span,
        message=f"{name} is deprecated in {launch.version.name}",
        evidence=(words, *gone),
        fix=fix or Fix(f"do without {name}, before a release comes that has it no more"),
        see=lives.threads(instead),
    )
