"""An attention backend that the GPU or the KV cache's data type rules out.

Every kernel for DeepSeek's attention (MLA) is written for one generation of GPUs, and not every one reads an FP8 cache:
FLASH_ATTN_MLA and FLASHMLA run on Hopper, CUTLASS_MLA, FLASHINFER_MLA and TOKENSPEED_MLA on Blackwell; FLASH_ATTN_MLA
takes bfloat16 only. A backend that is asked for by name is not replaced: vLLM says "Selected backend is not valid for
this configuration" and exits.

Leave the backend to vLLM, which finds the fastest that fits, or name one that does.
"""

from __future__ import annotations

from collections.abc import Iterator

from baton.check.bundle import Bundle
from baton.check.commands.launch import Launch
from baton.check.facts import machine, mla
from baton.check.finding import Finding, Fix, Harm

HARM = Harm.NOT_STARTING
SEE = ()
FIRES = """\
#!/bin/bash
docker run vllm/vllm-openai:v0.32.0 --model deepseek-ai/DeepSeek-R1 --data-parallel-size 16 --enable-expert-parallel \\
  --attention-backend FLASH_ATTN_MLA --kv-cache-dtype fp8
"""
SILENT = """\
#!/bin/bash
docker run vllm/vllm-openai:v0.32.0 --model deepseek-ai/DeepSeek-R1 --data-parallel-size 16 --enable-expert-parallel \\
  --attention-backend FLASHMLA --kv-cache-dtype fp8
"""


def check(bundle: Bundle) -> Iterator[Finding]:
    """Yield a finding for every backend asked for by name that cannot run as it is meant to."""
    for launch in bundle.engines:
        asked = mla.backend(launch)
        if asked is None or launch.is_sparse or not machine.is_cuda(launch) or not launch.is_between("0.12.0"):
            continue
        name, span = asked
        needed, generation = mla.GENERATIONS.get(name), machine.generation(bundle, launch)
        if needed is not None and generation is not None and needed != generation:
            yield Finding(
                span=span,
                message=f"{name} runs on {needed.title()} only, and this is {generation.title()}: the engine exits",
                evidence=(f"the GPU is {' or '.join(machine.candidates(bundle, launch))}",),
                fix=Fix("leave the backend out, and vLLM takes the fastest that fits"),
            )
            continue
        dtype = launch.given("--kv-cache-dtype")
        if dtype is not None and (takes := _refuses(launch, name)) is not None:
            yield Finding(
                span=dtype.span,
                message=f"{name} takes no --kv-cache-dtype {launch.value('--kv-cache-dtype')}: the engine exits",
                evidence=(f"in {launch.version.name} it takes {takes}",),
                fix=Fix(f"give it {takes}, or leave the backend out"),
                also=((span, "asks for the backend"),),
            )


def _refuses(launch: Launch, name: str) -> str | None:
    """What a backend takes instead of the KV data type that is given; None if it takes that one, or it is not known."""
    value = launch.value("--kv-cache-dtype")
    if not isinstance(value, str):
        return None
    is_fp8 = value in ("fp8", "fp8_e4m3")
    if is_fp8 and (name == "FLASH_ATTN_MLA" or (name == "TRITON_MLA" and launch.is_between(before="0.18.0"))):
        return "auto or bfloat16"
    return "fp8" if name == "TOKENSPEED_MLA" and value == "bfloat16" else None
