"""An expert load balancer that cannot balance.

EPLB moves experts between ranks, so it needs `--enable-expert-parallel` and more than one rank, and as many copies of
experts on each: routed plus redundant experts must divide by the ranks. Redundant experts without `--enable-eplb` are
refused too. vLLM exits on all of these; on an uneven division only when the model is built, minutes later.

Choose `num_redundant_experts` so that (routed + redundant) / (TP x DP) is whole: 256 + 32 for 16 or 32 ranks.
"""

from __future__ import annotations

from collections.abc import Iterator

from baton.check.bundle import Bundle
from baton.check.commands.arguments import Argument
from baton.check.commands.launch import Launch
from baton.check.facts import machine, parallel
from baton.check.facts.mla import model
from baton.check.finding import Finding, Fix, Harm

HARM = Harm.NOT_STARTING
SEE = ()
FIRES = """\
#!/bin/bash
docker run vllm/vllm-openai:v0.32.0 --model deepseek-ai/DeepSeek-R1 --data-parallel-size 12 --enable-expert-parallel \\
  --enable-eplb --eplb-config '{"num_redundant_experts": 30}'
"""
SILENT = """\
#!/bin/bash
docker run vllm/vllm-openai:v0.32.0 --model deepseek-ai/DeepSeek-R1 --data-parallel-size 12 --enable-expert-parallel \\
  --enable-eplb --eplb-config '{"num_redundant_experts": 32}'
"""
_MOST_REDUNDANT = 1023  # MAX_EXPERT_REDUNDANCY of eplb_state.py


def check(bundle: Bundle) -> Iterator[Finding]:
    """Yield a finding for every balancer that lacks what it needs, and for experts that do not divide."""
    for launch in bundle.engines:
        switch, config = launch.given("--enable-eplb"), _config(launch)
        redundant = _redundant(launch)
        if switch is not None and not switch.negated:
            yield from _without_ranks(launch, switch)
            if redundant is not None:
                yield from _uneven(launch, config or switch, redundant)
        elif config is not None and redundant and launch.is_on("--enable-eplb") is False:
            yield Finding(
                span=config.span,
                message=f"num_redundant_experts is {redundant} and EPLB is off: the engine exits",
                evidence=("vLLM: either enable EPLB or unset num_redundant_experts",),
                fix=Fix("add --enable-eplb, or remove it"),
            )


def _without_ranks(launch: Launch, switch: Argument) -> Iterator[Finding]:
    tp, dp, context = launch.tp_size, launch.dp_size, parallel.context_size(launch)
    why = None
    if launch.is_on("--enable-expert-parallel") is False:
        why = "without --enable-expert-parallel"
    elif (tp, dp, context) == (1, 1, 1):
        why = "with one rank"
    if why is not None and machine.is_cuda(launch):
        yield Finding(
            span=switch.written.span,
            message=f"--enable-eplb {why}: the engine exits",
            evidence=("EPLB requires expert parallelism, and tensor or data parallel size greater than 1",),
            fix=Fix("add what is missing, or remove --enable-eplb"),
        )


def _uneven(launch: Launch, option: Argument, redundant: int) -> Iterator[Finding]:
    shape, ranks, context = model(launch), launch.ep_size, parallel.context_size(launch)
    if redundant > _MOST_REDUNDANT:
        yield Finding(
            span=option.span,
            message=f"num_redundant_experts {redundant} is more than {_MOST_REDUNDANT}: the engine exits",
            evidence=("the balancer's table of copies is that long",),
            fix=Fix(f"give at most {_MOST_REDUNDANT}"),
        )
    elif shape is not None and ranks is not None and 1 < ranks < 10**6 and context == 1:
        routed = shape.shape.n_routed_experts
        rest = (routed + redundant) % ranks
        if rest:
            yield Finding(
                span=option.span,
                message=f"{routed} + {redundant} experts do not divide by {ranks} ranks: the engine exits",
                evidence=(
                    f"({routed} routed + {redundant} redundant) / ({parallel.sum_in_words(launch)}) leaves {rest} over",
                    "vLLM: EPLB currently only supports even distribution of experts across ranks",
                ),
                fix=Fix(f"give num_redundant_experts {redundant + ranks - rest}"),
            )


def _config(launch: Launch) -> Argument | None:
    found = [*launch.all_given("--eplb-config"), *launch.all_given("--num-redundant-experts")]
    return found[-1] if found else None


def _redundant(launch: Launch) -> int | None:
    """Redundant experts, also where they are written as a string; None if not known."""
    value = launch.config("--eplb-config", "num_redundant_experts")
    if launch.given("--num-redundant-experts") is not None:
        value = launch.value("--num-redundant-experts")
    text = str(value)
    return int(text) if text.isdecimal() and len(text) < 9 else None
