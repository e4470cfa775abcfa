"""A KV block size that the attention kernel does not take.

The kernels for DeepSeek's attention (MLA) read the KV cache in blocks of fixed sizes: 64 tokens on Hopper, 32, 64 or
128 on Blackwell. Up to vLLM 0.17 another `--block-size` was replaced with a line in the log. Since 0.19 it is kept and
chooses the kernel: a size that the fast one does not take means a slower one, and a size that none takes means "No
valid attention backend found", and the engine exits.

Leave `--block-size` out: the engine takes what its kernel needs.
"""

from __future__ import annotations

from collections.abc import Iterator

from baton.check.bundle import Bundle
from baton.check.commands.arguments import Argument
from baton.check.commands.launch import Launch
from baton.check.edits import fixes
from baton.check.facts import machine, mla
from baton.check.finding import Finding, Fix, Harm

HARM = Harm.NOT_STARTING
SEE = ()
FIRES = """\
#!/bin/bash
docker run vllm/vllm-openai:v0.32.0 --model deepseek-ai/DeepSeek-R1 --data-parallel-size 16 --block-size 1
"""
SILENT = """\
#!/bin/bash
docker run vllm/vllm-openai:v0.32.0 --model deepseek-ai/DeepSeek-R1 --data-parallel-size 16 --block-size 64
"""


def check(bundle: Bundle) -> Iterator[Finding]:
    """Yield a finding for every block size that is replaced, refused, or costs the fast kernel."""
    for launch in bundle.engines:
        option, size = launch.given("--block-size"), launch.value("--block-size")
        if option is None or not isinstance(size, int) or size < 1:
            continue
        if not machine.is_cuda(launch) or mla.model(launch) is None:
            continue
        if launch.is_between(before="0.18.0"):
            yield from _replaced(launch, option, size, machine.generation(bundle, launch))
        elif launch.is_between("0.19.0"):
            yield from _refused(launch, option, size, machine.generation(bundle, launch))


def _replaced(launch: Launch, option: Argument, size: int, generation: str | None) -> Iterator[Finding]:
    """platforms/cuda.py, check_and_update_config, of vLLM 0.11.0 to 0.17.1."""
    asked = mla.backend(launch)
    if asked is None and (generation is None or not mla.is_backend_open(launch)):
        return
    name = asked[0] if asked is not None else _default(launch, str(generation))
    forced = {"FLASHMLA": 64, "CUTLASS_MLA": 128, "FLASHINFER_MLA": 64}.get(name)
    if forced is None or size % forced == 0 or (name == "FLASHINFER_MLA" and size == 32):
        return
    yield Finding(
        span=option.span,
        message=f"--block-size {size} is replaced by {forced}, which {name} needs",
        evidence=(f"{launch.version.name} forces the size of {name} and says so in one line of its log",),
        fix=Fix("remove it", fixes.remove_option(option)),
        harm=Harm.WASTED,
    )


def _default(launch: Launch, generation: str) -> str:
    """The kernel by default: on Blackwell 0.14.1 prefers CUTLASS, 0.17.1 FlashInfer."""
    if generation == "hopper":
        return "FLASHMLA"
    return "CUTLASS_MLA" if launch.is_between(before="0.15.0") else "FLASHINFER_MLA"


def _refused(launch: Launch, option: Argument, size: int, generation: str | None) -> Iterator[Finding]:
    asked = mla.backend(launch)
    needed = mla.BLOCK_SIZES.get(asked[0]) if asked is not None else min(mla.BLOCK_SIZES.values())
    fix = Fix("remove it", fixes.remove_option(option))
    if needed is not None and size % needed:
        who = asked[0] if asked is not None else "an MLA kernel"
        yield Finding(
            span=option.span,
            message=f"--block-size {size} is not a multiple of {needed}, which {who} needs: the engine exits",
            evidence=(f"{launch.version.name} keeps the size and finds no valid attention backend for it",),
            fix=fix,
        )
        return
    fast = _fast_size(launch, generation)
    if fast and size % fast and mla.is_backend_open(launch):
        yield Finding(
            span=option.span,
            message=f"--block-size {size} rules out {str(generation).title()}'s fast MLA kernel, which takes {fast}",
            evidence=("vLLM then takes TRITON_MLA and warns that performance may be reduced",),
            fix=fix,
            harm=Harm.WASTED,
        )


def _fast_size(launch: Launch, generation: str | None) -> int | None:
    if generation == "blackwell":
        return mla.BLOCK_SIZES["FLASHINFER_MLA"]
    is_fp8 = str(launch.value("--kv-cache-dtype")).startswith("fp8")
    return mla.BLOCK_SIZES["FLASHMLA"] if generation == "hopper" and is_fp8 else None
