"""A variable that the release which runs means to drop.

It works today, with a line in the log at most. A later release does not read it, and then it does nothing: variables
that are not known give no error, so the day it stops working goes by unseen.

Write what takes its place now, while both work.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from baton.catalogue import history
from baton.check.bundle import Bundle
from baton.check.commands import versions
from baton.check.edits import replace
from baton.check.facts import lives, variables
from baton.check.facts.variables import Setting
from baton.check.finding import Finding, Fix, Harm

HARM = Harm.FRAGILE
SEE = ("https://github.com/vllm-project/vllm/pull/43148",)
FIRES = """\
#!/bin/bash
docker run -e VLLM_USE_FLASHINFER_MOE_FP8=1 vllm/vllm-openai:v0.22.1 --model m
"""
SILENT = """\
#!/bin/bash
docker run vllm/vllm-openai:v0.22.1 --model m --moe-backend flashinfer_cutlass
"""


def check(bundle: Bundle) -> Iterator[Finding]:
    """Yield a finding for every variable that is deprecated in all that may run."""
    for prefix in ("VLLM_", "DYN_"):
        for sharing in replace.together(variables.settings(bundle, prefix)):
            for setting in sharing:
                catalogues = setting.launch.version.catalogues
                said = [c.envs[setting.name].deprecated for c in catalogues if setting.name in c.envs]
                if len(said) == len(catalogues) and all(said):
                    yield _finding(setting, said[-1], sharing)


def _finding(setting: Setting, said: str, sharing: Sequence[Setting]) -> Finding:
    launch, name = setting.launch, setting.name
    stays = history.of_env(versions.candidates(launch.engine), name)
    gone = (f"{launch.engine} {stays[-1].until} does not read it",) if stays[-1].until else ()
    fix, instead = replace.variable(sharing)
    return Finding(
        span=setting.span,
        message=f"{name} is deprecated in {launch.version.name}",
        evidence=(f"the engine says: {' '.join(said.split())}", *gone),
        fix=fix or Fix(f"do without {name}, before a release comes that does not read it"),
        see=lives.threads(instead),
    )
