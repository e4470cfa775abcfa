"""Dual batch overlap that never happens.

The overlap hides all2all traffic between data-parallel ranks. With a data-parallel size of 1 there is none, and vLLM
skips it without a word. The thresholds `--dbo-decode-token-threshold` and `--dbo-prefill-token-threshold` are read only
where `--enable-dbo` stands beside them.

Leave the flags out, or add what makes them work.
"""

from __future__ import annotations

from collections.abc import Iterator

from baton.check.bundle import Bundle
from baton.check.edits import fixes
from baton.check.finding import Finding, Fix, Harm

HARM = Harm.WASTED
SEE = ()
FIRES = """\
#!/bin/bash
docker run vllm/vllm-openai:v0.32.0 --model m --data-parallel-size 8 --enable-expert-parallel \\
  --all2all-backend deepep_low_latency --dbo-decode-token-threshold 32
"""
SILENT = """\
#!/bin/bash
docker run vllm/vllm-openai:v0.32.0 --model m --data-parallel-size 8 --enable-expert-parallel \\
  --all2all-backend deepep_low_latency --enable-dbo --dbo-decode-token-threshold 32
"""
_THRESHOLDS = ("--dbo-decode-token-threshold", "--dbo-prefill-token-threshold")


def check(bundle: Bundle) -> Iterator[Finding]:
    """Yield a finding for an overlap with one rank, and for thresholds without the overlap."""
    for launch in bundle.engines:
        switch = launch.given("--enable-dbo")
        if switch is not None and not switch.negated and launch.dp_size == 1:
            yield Finding(
                span=switch.written.span,
                message="--enable-dbo does nothing with --data-parallel-size 1",
                evidence=("vLLM cuts batches only where data-parallel ranks exchange tokens, and does not warn",),
                fix=Fix("remove it", fixes.remove_option(switch)),
            )
        if launch.is_on("--enable-dbo") is not False or not launch.lacks("--ubatch-size"):
            continue
        for option in (o for name in _THRESHOLDS if (o := launch.given(name)) is not None):
            yield Finding(
                span=option.span,
                message=f"{option.name} is not read without --enable-dbo",
                evidence=("only the overlap asks for it",),
                fix=Fix("add --enable-dbo, or remove it", fixes.remove_option(option), is_guess=True),
            )
