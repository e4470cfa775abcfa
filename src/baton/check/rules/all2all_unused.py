"""An all2all backend that nothing uses.

All2all kernels move tokens between data-parallel ranks that each hold a part of the experts. vLLM uses them only with
`--enable-expert-parallel` and a data-parallel size above 1; else it keeps the experts together, or reduces over the
tensor-parallel group, and does not say that the backend was left unused.

Add what is missing, or leave `--all2all-backend` out.
"""

from __future__ import annotations

from collections.abc import Iterator

from baton.check.bundle import Bundle
from baton.check.commands.launch import Launch
from baton.check.edits import fixes
from baton.check.facts import parallel
from baton.check.finding import Finding, Fix, Harm

HARM = Harm.WASTED
SEE = ()
FIRES = """\
#!/bin/bash
docker run vllm/vllm-openai:v0.32.0 --model m --data-parallel-size 8 --all2all-backend deepep_low_latency
"""
SILENT = """\
#!/bin/bash
docker run vllm/vllm-openai:v0.32.0 --model m --data-parallel-size 8 --enable-expert-parallel \\
  --all2all-backend deepep_low_latency
"""


def check(bundle: Bundle) -> Iterator[Finding]:
    """Yield a finding for every backend that is given and has no ranks to work between."""
    for launch in bundle.engines:
        option = launch.given("--all2all-backend")
        why = _why(launch) if option is not None and launch.all2all not in (None, _default(launch)) else None
        if option is not None and why is not None:
            yield Finding(
                span=option.span,
                message=f"--all2all-backend {launch.all2all} is not used: {why}",
                evidence=(
                    "vLLM uses all2all kernels only with expert parallelism over more than one data-parallel rank",
                ),
                fix=Fix("add what is missing, or remove the flag", fixes.remove_option(option), is_guess=True),
            )


def _why(launch: Launch) -> str | None:
    """What is missing; None if nothing is, it is not known, or expert-parallel-alone says it."""
    is_on, dp, tp = launch.is_on("--enable-expert-parallel"), launch.dp_size, launch.tp_size
    if is_on is False:
        return "--enable-expert-parallel is not given"
    is_alone = dp == 1 and parallel.context_size(launch) == 1
    return "--data-parallel-size is 1" if is_on and is_alone and tp is not None and tp > 1 else None


def _default(launch: Launch) -> object:
    flag = launch.flag("--all2all-backend")
    return flag.default if flag is not None else None
