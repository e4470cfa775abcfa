"""A benchmark's random router in a server.

VLLM_MOE_ROUTING_SIMULATION_STRATEGY replaces the model's choice of experts by chance, to measure a balanced load. The
answers are then gibberish, with HTTP 200. Up to vLLM 0.11 DeepSeek's grouped routing overwrote the simulated choice, so
a manifest that carried the variable along began to talk nonsense with 0.12; that is most likely what
vllm-project/vllm#32190 is about, whose environment has it.

Remove the variable from everything that serves people.
"""

from __future__ import annotations

from collections.abc import Iterator

from baton.check.bundle import Bundle
from baton.check.facts.variables import settings
from baton.check.finding import Finding, Fix, Harm

HARM = Harm.WRONG_ANSWERS
SEE = (
    "https://github.com/vllm-project/vllm/issues/32190",
    "https://github.com/vllm-project/vllm/pull/28002",
)
FIRES = """\
#!/bin/bash
docker run -e VLLM_MOE_ROUTING_SIMULATION_STRATEGY=uniform_random vllm/vllm-openai:v0.14.1 --model m
"""
SILENT = """\
#!/bin/bash
docker run vllm/vllm-openai:v0.14.1 --model m --max-model-len 4096
"""
_NAME = "VLLM_MOE_ROUTING_SIMULATION_STRATEGY"


def check(bundle: Bundle) -> Iterator[Finding]:
    """Yield a finding for every engine whose experts are drawn by lot."""
    for setting in settings(bundle, _NAME):
        launch, value = setting.launch, setting.word.value
        is_set = setting.word.is_known and value != ""
        if setting.name == _NAME and is_set and launch.is_between("0.12.0") and launch.reads(_NAME):
            yield Finding(
                span=setting.span,
                message=f"{_NAME}={value}: experts are chosen at random, and answers are gibberish",
                evidence=(
                    "the variable is for benchmarks; since vLLM 0.12 it also overrides DeepSeek's grouped routing",
                ),
                fix=Fix("remove it", setting.removal()),
            )
