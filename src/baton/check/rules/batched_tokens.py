"""A token budget that is too small for the sequences, or for one prompt.

`--max-num-batched-tokens` is what one step of the engine computes. It must hold one token of each of `--max-num-seqs`
sequences and, where prompts may not be cut (`--no-enable-chunked-prefill`), a whole prompt of `--max-model-len`. vLLM
exits if it does not. Its default is not fixed: since 0.20 it is 256 over `deepep_low_latency`, so a decode engine with
`--max-num-seqs 512` that ran for a year stops at the upgrade.

Give `--max-num-batched-tokens` at least as large as `--max-num-seqs`.
"""

from __future__ import annotations

from collections.abc import Iterator

from baton.check.bundle import Bundle
from baton.check.commands.launch import Launch
from baton.check.edits import fixes
from baton.check.facts import parallel
from baton.check.finding import Finding, Fix, Harm

HARM = Harm.NOT_STARTING
SEE = ()
FIRES = """\
#!/bin/bash
docker run vllm/vllm-openai:v0.32.0 --model m --data-parallel-size 8 --enable-expert-parallel \\
  --all2all-backend deepep_low_latency --max-num-seqs 512
"""
SILENT = """\
#!/bin/bash
docker run vllm/vllm-openai:v0.32.0 --model m --data-parallel-size 8 --enable-expert-parallel \\
  --all2all-backend deepep_low_latency --max-num-seqs 512 --max-num-batched-tokens 512
"""
BATCHED_DEFAULT = 256
"""SchedulerConfig.DEFAULT_MAX_NUM_BATCHED_TOKENS_FOR_BATCHED_DP, in 0.20.2 and later, not in 0.19.1"""
_TOKENS, _SEQS, _CHUNKED = "--max-num-batched-tokens", "--max-num-seqs", "--enable-chunked-prefill"


def check(bundle: Bundle) -> Iterator[Finding]:
    """Yield a finding for every budget, given or by default, that vLLM refuses."""
    for launch in bundle.engines:
        found = _for_sequences(launch) or _by_default(launch) or _for_prompts(launch)
        if found is not None:
            yield found


def _for_sequences(launch: Launch) -> Finding | None:
    option, seqs_option = launch.given(_TOKENS), launch.given(_SEQS)
    tokens, seqs = launch.value(_TOKENS), launch.value(_SEQS)
    if option is None or seqs_option is None or not isinstance(tokens, int) or not isinstance(seqs, int):
        return None
    if not 0 < tokens < seqs:
        return None
    return Finding(
        span=option.span,
        message=f"{_TOKENS} {tokens} is less than {_SEQS} {seqs}: the engine exits",
        evidence=("a step computes at least one token of every sequence",),
        fix=Fix(f"give {_TOKENS} {seqs} or more", fixes.replace_value(option, str(seqs))),
        also=((seqs_option.span, "asks for the sequences"),),
    )


def _by_default(launch: Launch) -> Finding | None:
    option, seqs = launch.given(_SEQS), launch.value(_SEQS)
    is_batched = launch.all2all in (parallel.LOW_LATENCY, "nixl_ep") and parallel.is_wide(launch)
    if option is None or not is_batched or not isinstance(seqs, int) or seqs <= BATCHED_DEFAULT:
        return None
    if not launch.lacks(_TOKENS) or not launch.is_between("0.20.0") or launch.is_on(_CHUNKED) is False:
        return None
    return Finding(
        span=option.span,
        message=f"{_SEQS} {seqs} with the default of {BATCHED_DEFAULT} batched tokens: the engine exits",
        evidence=(
            f"since vLLM 0.20 {_TOKENS} is {BATCHED_DEFAULT} by default over {launch.all2all}; it was 8192 before",
            "it sizes the buffer of the kernels, in which every rank keeps room for all tokens of all ranks",
        ),
        fix=Fix(f"add {_TOKENS} {seqs}"),
    )


def _for_prompts(launch: Launch) -> Finding | None:
    option, switch = launch.given(_TOKENS), launch.given(_CHUNKED)
    tokens, longest = launch.value(_TOKENS), launch.value("--max-model-len")
    # 0.11.0 (arg_utils.py:1544) switches chunked prefill on, whatever is asked for
    is_whole = switch is not None and launch.is_on(_CHUNKED) is False and launch.is_between("0.12.0")
    if option is None or switch is None or not is_whole or launch.given("--max-model-len") is None:
        return None
    if not isinstance(tokens, int) or not isinstance(longest, int) or tokens >= longest:
        return None
    return Finding(
        span=option.span,
        message=f"{_TOKENS} {tokens} is less than --max-model-len {longest}, uncut: the engine exits",
        evidence=("without chunked prefill a prompt is computed in one step",),
        fix=Fix(f"give {_TOKENS} {longest}, or remove {switch.written.value}"),
        also=((switch.span, "forbids to cut prompts"),),
    )
