"""An all2all backend that is known to give wrong answers, or is gone.

FlashInfer's NVLink kernels had two faults that show in the answers alone. Up to vLLM 0.20 their sum was reduced a
second time over the tensor-parallel group (found by a lower GSM8K score, mended in vllm-project/vllm#41382). And
`flashinfer_nvlink_two_sided`, which was called `flashinfer_all2allv` before 0.19, is reported to give gibberish on
GB200; that thread is open. `pplx` and `naive` are names without kernels: vLLM warns and takes the default.

On NVLink domains use `flashinfer_nvlink_one_sided` or `allgather_reducescatter`, and test the answers, not the status.
"""

from __future__ import annotations

from collections.abc import Iterator

from baton.check.bundle import Bundle
from baton.check.commands.arguments import Argument
from baton.check.commands.launch import Launch
from baton.check.edits import fixes
from baton.check.facts import machine, parallel
from baton.check.finding import Finding, Fix, Harm

HARM = Harm.WRONG_ANSWERS
SEE = (
    "https://github.com/vllm-project/vllm/issues/39722",
    "https://github.com/vllm-project/vllm/pull/41382",
)
FIRES = """\
#!/bin/bash
docker run vllm/vllm-openai:v0.19.1 --model m -dp 2 -tp 2 --enable-expert-parallel \\
  --all2all-backend flashinfer_nvlink_two_sided
"""
SILENT = """\
#!/bin/bash
docker run vllm/vllm-openai:v0.19.1 --model m -dp 2 -tp 2 --enable-expert-parallel \\
  --all2all-backend allgather_reducescatter
"""
_OLD_NAME, _TWO_SIDED, _ONE_SIDED = "flashinfer_all2allv", "flashinfer_nvlink_two_sided", "flashinfer_nvlink_one_sided"
_GONE = {"pplx": "0.17.0", "naive": "0.19.0"}
_INSTEAD = "allgather_reducescatter"


def check(bundle: Bundle) -> Iterator[Finding]:
    """Yield the worst that is known of every backend that is given and used."""
    for launch in bundle.engines:
        option = launch.given("--all2all-backend")
        if option is not None and parallel.is_wide(launch) and machine.is_cuda(launch):
            found = _gibberish(bundle, launch, option) or _reduced_twice(launch, option) or _gone(launch, option)
            if found is not None:
                yield found


def _gibberish(bundle: Bundle, launch: Launch, option: Argument) -> Finding | None:
    names = machine.candidates(bundle, launch)
    if launch.all2all not in (_OLD_NAME, _TWO_SIDED) or not names or not set(names) <= {"gb200", "gb300"}:
        return None
    return Finding(
        span=option.span,
        message=f"{launch.all2all} is reported to give gibberish on GB200",
        evidence=(
            "vllm-project/vllm#39722: vLLM 0.19.0 on GB200, several models; open, so no release is known to be good",
            f"{_OLD_NAME} is the older name of {_TWO_SIDED}",
        ),
        fix=Fix(f"use {_INSTEAD}", fixes.replace_value(option, _INSTEAD)),
        see=(SEE[0],),
    )


def _reduced_twice(launch: Launch, option: Argument) -> Finding | None:
    """output_is_reduced of prepare_finalize: False in 0.12.0 to 0.20.2, True in 0.22.1; no matter with one TP rank."""
    if launch.all2all not in (_OLD_NAME, _TWO_SIDED, _ONE_SIDED) or not launch.is_between(before="0.21.0"):
        return None
    if launch.tp_size is None or launch.tp_size < 2:
        return None
    return Finding(
        span=option.span,
        message=f"{launch.all2all} with TP {launch.tp_size}: {launch.version.name} adds up the experts' output twice",
        evidence=(
            "FlashInfer has reduced it already; mended by vllm-project/vllm#41382, which 0.22 has and 0.20 lacks",
        ),
        fix=Fix(f"use {_INSTEAD}, or vLLM 0.22 or later", fixes.replace_value(option, _INSTEAD), is_guess=True),
        see=(SEE[1],),
    )


def _gone(launch: Launch, option: Argument) -> Finding | None:
    name = launch.all2all or ""
    if name in _GONE and launch.is_between(_GONE[name]):
        return Finding(
            span=option.span,
            message=f"the all2all backend {name} is gone: vLLM warns and takes {_INSTEAD}",
            evidence=(f"{launch.version.name} knows the name and has no kernels for it",),
            fix=Fix(f"write {_INSTEAD}, or choose another", fixes.replace_value(option, _INSTEAD), is_guess=True),
            harm=Harm.WASTED,
            see=("https://docs.vllm.ai/en/latest/serving/expert_parallel_deployment/",),
        )
    if name == _OLD_NAME and launch.is_between("0.19.0"):
        return Finding(
            span=option.span,
            message=f"{_OLD_NAME} is now called {_TWO_SIDED}, and the old name will go",
            evidence=("vLLM takes both and warns of the old one",),
            fix=Fix(f"write {_TWO_SIDED}", fixes.replace_value(option, _TWO_SIDED)),
            harm=Harm.FRAGILE,
        )
    return None
