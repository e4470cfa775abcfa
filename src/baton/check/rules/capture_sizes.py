"""CUDA graphs that are too small for the largest batch.

A decode step with more sequences than the largest captured graph runs without one, and is slower by far; nothing is
said. By default vLLM captures up to twice `--max-num-seqs`, but at most 512 (on Blackwell 1024 since 0.28). Sizes and
the largest size, where both are given, must agree, or the engine exits.

Capture up to `--max-num-seqs`: `--max-cudagraph-capture-size 1024`, or lower `--max-num-seqs`.
"""

from __future__ import annotations

from collections.abc import Iterator

from baton.check.bundle import Bundle
from baton.check.commands.launch import Launch
from baton.check.facts import machine, parallel
from baton.check.finding import Finding, Fix, Harm

HARM = Harm.WASTED
SEE = ()
FIRES = """\
#!/bin/bash
docker run vllm/vllm-openai:v0.32.0 --model m --max-num-seqs 1024 --max-num-batched-tokens 8192 \\
  --cudagraph-capture-sizes 128 256 512
"""
SILENT = """\
#!/bin/bash
docker run vllm/vllm-openai:v0.32.0 --model m --max-num-seqs 1024 --max-num-batched-tokens 8192 \\
  --cudagraph-capture-sizes 128 512 1024
"""
_SIZES, _MOST, _OLD, _SEQS = (
    "--cudagraph-capture-sizes",
    "--max-cudagraph-capture-size",
    "--cuda-graph-sizes",
    "--max-num-seqs",
)
_CONFIG = "--compilation-config"


def check(bundle: Bundle) -> Iterator[Finding]:
    """Yield a finding for sizes that contradict each other, and for batches that outgrow every graph."""
    for launch in bundle.engines:
        sizes, most = _captured(launch), launch.value(_MOST)
        option = launch.given(_MOST)
        if sizes and option is not None and isinstance(most, int) and most != max(sizes) and launch.has_flag(_MOST):
            yield Finding(
                span=option.span,
                message=f"{_MOST} {most} and a largest capture size of {max(sizes)}: the engine exits",
                evidence=("vLLM: the customized maximum should be consistent with the largest of the sizes",),
                fix=Fix("give one of the two"),
                harm=Harm.NOT_STARTING,
            )
            continue
        seqs, seqs_option = launch.value(_SEQS), launch.given(_SEQS)
        largest = _largest(bundle, launch, sizes)
        if seqs_option is None or not isinstance(seqs, int) or largest is None or seqs <= largest or not _uses(launch):
            continue
        by = launch.given(_SIZES) or option
        why = "" if by is not None else f"vLLM captures up to {largest} by default; "
        yield Finding(
            span=(by or seqs_option).span,
            message=f"the largest CUDA graph is for {largest} sequences, and {_SEQS} is {seqs}",
            evidence=(f"{why}steps of {largest + 1} to {seqs} sequences run without a graph",),
            fix=Fix(f"capture up to {seqs} with {_MOST} {seqs}, or lower {_SEQS} to {largest}"),
            also=((seqs_option.span, "asks for the sequences"),) if by is not None else (),
        )


def _captured(launch: Launch) -> list[int]:
    value = (
        launch.value(_SIZES) if launch.given(_SIZES) is not None else launch.config(_CONFIG, "cudagraph_capture_sizes")
    )
    return [size for size in value if isinstance(size, int)] if isinstance(value, list) else []


def _largest(bundle: Bundle, launch: Launch, sizes: list[int]) -> int | None:
    """The largest batch with a graph; None if it is not known."""
    if sizes:
        return max(sizes)
    if launch.given(_MOST) is not None:
        most = launch.value(_MOST)
        return most if isinstance(most, int) else None
    if launch.given(_OLD) is not None or not launch.lacks(_SIZES, _MOST) or _has_config(launch):
        return None
    if launch.is_between(before="0.27.0"):
        return 512
    if launch.is_between("0.28.0"):
        return 512 if machine.generation(bundle, launch) == "hopper" else 1024
    return None


def _has_config(launch: Launch) -> bool:
    keys = ("cudagraph_capture_sizes", "max_cudagraph_capture_size")
    return any(launch.has_config(_CONFIG, key) for key in keys) or bool(launch.all_given("--optimization-level"))


def _uses(launch: Launch) -> bool:
    """Whether graphs are captured at all, and a step is one token of each sequence."""
    mode = launch.config(_CONFIG, "cudagraph_mode") if launch.has_config(_CONFIG, "cudagraph_mode") else "FULL"
    is_on = launch.is_on("--enforce-eager") is False and launch.all2all != parallel.HIGH_THROUGHPUT
    is_captured = isinstance(mode, str) and mode.upper() != "NONE" and machine.is_cuda(launch)
    return is_on and is_captured and launch.side != "prefill" and launch.lacks("--speculative-config")
