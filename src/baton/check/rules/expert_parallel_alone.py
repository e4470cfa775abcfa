"""Expert parallelism with one rank.

`--enable-expert-parallel` spreads the experts over tensor x data parallel ranks. With one rank there is nothing to
spread over: vLLM leaves it off and says nothing, in every release. The all2all backend, EPLB and whatever else was
meant to come with it are off too.

Give `--data-parallel-size` or `--tensor-parallel-size`, or leave the flag out.
"""

from __future__ import annotations

from collections.abc import Iterator

from baton.check.bundle import Bundle
from baton.check.edits import fixes
from baton.check.facts import parallel
from baton.check.finding import Finding, Fix, Harm

HARM = Harm.WASTED
SEE = ()
FIRES = """\
#!/bin/bash
docker run vllm/vllm-openai:v0.32.0 --model m --enable-expert-parallel --max-model-len 4096
"""
SILENT = """\
#!/bin/bash
docker run vllm/vllm-openai:v0.32.0 --model m --enable-expert-parallel --data-parallel-size 2
"""


def check(bundle: Bundle) -> Iterator[Finding]:
    """Yield a finding for every engine whose experts have one rank to be on."""
    for launch in bundle.engines:
        option = launch.given("--enable-expert-parallel")
        sizes = (launch.tp_size, launch.dp_size, parallel.context_size(launch))
        if option is not None and not option.negated and sizes == (1, 1, 1) and not launch.all_given("--enable-eplb"):
            backend = launch.given("--all2all-backend")
            yield Finding(
                span=option.written.span,
                message="--enable-expert-parallel does nothing with one rank: TP 1 x DP 1",
                evidence=(
                    "vLLM spreads experts only if tensor x data parallel size is more than 1, and does not warn",
                ),
                fix=Fix(
                    "give --data-parallel-size or --tensor-parallel-size, or remove the flag",
                    fixes.remove_option(option),
                ),
                also=((backend.span, "is without effect for the same reason"),) if backend is not None else (),
            )
