"""Dual batch overlap over an all2all backend that cannot do it.

`--enable-dbo` (and `--ubatch-size`) cuts every batch in two and sends one half's tokens while the other half is
computed. Only backends with asynchronous kernels can: vLLM asserts that the backend is one of DeepEP's two, since 0.24
also `nixl_ep`, and exits otherwise, also when the backend is merely the default.

Give `--all2all-backend deepep_low_latency` (decode) or `deepep_high_throughput` (prefill), or leave `--enable-dbo` out.
"""

from __future__ import annotations

from collections.abc import Iterator

from baton.check.bundle import Bundle
from baton.check.commands.launch import Launch
from baton.check.facts import machine, parallel
from baton.check.finding import Finding, Fix, Harm
from baton.check.text import Span

HARM = Harm.NOT_STARTING
SEE = ()
FIRES = """\
#!/bin/bash
docker run vllm/vllm-openai:v0.32.0 --model m --data-parallel-size 8 --enable-expert-parallel --enable-dbo
"""
SILENT = """\
#!/bin/bash
docker run vllm/vllm-openai:v0.32.0 --model m --data-parallel-size 8 --enable-expert-parallel --enable-dbo \\
  --all2all-backend deepep_low_latency
"""
_ALWAYS = (parallel.LOW_LATENCY, parallel.HIGH_THROUGHPUT)


def check(bundle: Bundle) -> Iterator[Finding]:
    """Yield a finding for every engine that overlaps batches over a backend that is not made for it."""
    for launch in bundle.engines:
        switch = launch.given("--enable-dbo")
        is_on = (switch is not None and not switch.negated) or _is_cut(launch)
        backend = launch.all2all
        if not is_on or backend is None or backend in _allowed(launch) or not machine.is_cuda(launch):
            continue
        option = launch.given("--all2all-backend")
        by = switch if switch is not None else launch.given("--ubatch-size")
        span = _span(launch, by.span if by is not None else launch.start)
        yield Finding(
            span=span,
            message=f"dual batch overlap does not run over {backend}: the engine exits",
            evidence=(f"{launch.version.name} asserts that the backend is one of {', '.join(_allowed(launch))}",),
            fix=Fix("give --all2all-backend deepep_low_latency or deepep_high_throughput, or remove --enable-dbo"),
            also=((by.span, "asks for the overlap"),) if by is not None and option is not None else (),
        )


def _is_cut(launch: Launch) -> bool:
    size = launch.value("--ubatch-size")
    return isinstance(size, int) and size > 1 and launch.is_between("0.14.1")


def _allowed(launch: Launch) -> tuple[str, ...]:
    """0.22.1 (config/vllm.py) refuses nixl_ep, 0.24.0 takes it; of 0.23 nothing is claimed."""
    return _ALWAYS if launch.is_between(before="0.23.0") else (*_ALWAYS, "nixl_ep")


def _span(launch: Launch, otherwise: Span) -> Span:
    option = launch.given("--all2all-backend")
    if option is not None:
        return option.words[0].span if option.words else option.span
    word = launch.env.get("VLLM_ALL2ALL_BACKEND")
    return word.span if word is not None else otherwise
