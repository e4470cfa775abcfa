"""Settings for CUDA graphs that something else switches off.

`--enforce-eager` runs the model without torch.compile and without CUDA graphs, and wins over everything that asks for
them: the graph mode, the capture sizes, the fusion passes of the compiler. DeepEP's high-throughput backend over
several data-parallel ranks switches CUDA graphs off too. vLLM says so in one INFO line, and decodes far slower.

Remove one of the two; a decode engine wants the graphs, and `deepep_low_latency`.
"""

from __future__ import annotations

from collections.abc import Iterator

from baton.check.bundle import Bundle
from baton.check.commands.launch import Launch
from baton.check.edits import fixes
from baton.check.facts import machine, parallel
from baton.check.finding import Finding, Fix, Harm
from baton.check.text import Span

HARM = Harm.WASTED
SEE = ()
FIRES = """\
#!/bin/bash
docker run vllm/vllm-openai:v0.32.0 --model m --enforce-eager --compilation-config '{"cudagraph_mode":"FULL"}'
"""
SILENT = """\
#!/bin/bash
docker run vllm/vllm-openai:v0.32.0 --model m --compilation-config '{"cudagraph_mode":"FULL"}'
"""
_SIZES = ("--cudagraph-capture-sizes", "--max-cudagraph-capture-size", "--cuda-graph-sizes")
_CONFIG = "--compilation-config"
_GRAPH_KEYS = ("cudagraph_mode", "cudagraph_capture_sizes", "max_cudagraph_capture_size")


def check(bundle: Bundle) -> Iterator[Finding]:
    """Yield a finding for every engine that asks for graphs, or fusions, and for something that rules them out."""
    for launch in bundle.engines:
        graphs = dict(_asked(launch))
        switch = launch.given("--enforce-eager")
        if switch is not None and not switch.negated:
            passes = dict(_passes(launch))
            if graphs or passes:
                names = ", ".join([*graphs, *passes])
                yield Finding(
                    span=switch.written.span,
                    message=f"--enforce-eager wins: {names} without effect",
                    evidence=("under --enforce-eager vLLM neither compiles nor captures graphs",),
                    fix=Fix(f"remove --enforce-eager, or {names}", fixes.remove_option(switch), is_guess=True),
                    also=tuple((span, "is without effect") for span in {**graphs, **passes}.values()),
                )
        elif graphs and _is_off_by_backend(launch):
            name, span = next(iter(graphs.items()))
            yield Finding(
                span=span,
                message=f"{name} is without effect: {parallel.HIGH_THROUGHPUT} switches CUDA graphs off",
                evidence=(
                    f"over more than one data-parallel rank vLLM sets cudagraph_mode to NONE; DP is {launch.dp_size}",
                ),
                fix=Fix(f"decode over {parallel.LOW_LATENCY}, or remove {name}"),
            )


def _asked(launch: Launch) -> Iterator[tuple[str, Span]]:
    """Everything that asks for CUDA graphs, and where."""
    for name in _SIZES:
        option = launch.given(name)
        if option is not None:
            yield name, option.span
    for option in launch.all_given(_CONFIG):
        held = launch.json(option) if not option.path else None
        keys = option.path[:1] if option.path else (held if isinstance(held, dict) else ())
        for key in _GRAPH_KEYS:
            if key in keys and str(launch.config(_CONFIG, key)).upper() not in ("NONE", "0", "[]"):
                yield key, option.span


def _passes(launch: Launch) -> Iterator[tuple[str, Span]]:
    """The fusion passes that are asked for."""
    for option in launch.all_given(_CONFIG):
        held = launch.json(option) if not option.path else None
        if option.path[:1] == ("pass_config",) or (isinstance(held, dict) and held.get("pass_config")):
            yield "pass_config", option.span


def _is_off_by_backend(launch: Launch) -> bool:
    is_wide = launch.dp_size is not None and launch.dp_size > 1
    return launch.all2all == parallel.HIGH_THROUGHPUT and is_wide and machine.is_cuda(launch)
