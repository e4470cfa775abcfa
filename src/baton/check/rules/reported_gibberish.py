"""A configuration of which somebody reported gibberish: ask the deployment before you believe it.

vllm#32190 reports that DeepSeek-R1 with data and expert parallelism over DeepEP answered gibberish with vLLM 0.12.0 and
0.13.0 and not with 0.11.0. The command of that report also set `VLLM_MOE_ROUTING_SIMULATION_STRATEGY`, which replaces
the router by chance; it had no effect in 0.11.0 and has one from 0.12.0 on (vllm#28002), so it alone explains what was
seen. The thread does not say so itself, and NVIDIA's recipe carried a warning because of it for a while.

A wrong answer comes with HTTP 200. Compare a few greedy answers with those of one plain vLLM, or run `baton prove`,
which does that, before anyone else uses the deployment.
"""

from __future__ import annotations

from collections.abc import Iterator

from baton.check.bundle import Bundle
from baton.check.finding import Finding, Fix, Harm

HARM = Harm.UNKNOWN
SEE = (
    "https://github.com/vllm-project/vllm/issues/32190",
    "https://github.com/ai-dynamo/dynamo/pull/5353",
    "https://github.com/vllm-project/vllm/pull/28002",
)
FIRES = """\
#!/bin/bash
docker run vllm/vllm-openai:v0.12.0 --model /models/deepseek-r1 \\
  --data-parallel-size 8 --enable-expert-parallel --all2all-backend deepep_low_latency
"""
SILENT = FIRES.replace("v0.12.0", "v0.14.1")


def check(bundle: Bundle) -> Iterator[Finding]:
    """Yield a note for every engine of that configuration in those releases."""
    for launch in bundle.engines:
        is_wide = launch.ep_size is not None and launch.ep_size > 1 and (launch.dp_size or 1) > 1
        is_deepep = (launch.all2all or "").startswith("deepep")
        is_named = launch.known_model == "deepseek-r1" and launch.version.is_known
        if is_named and is_wide and is_deepep and launch.is_between("0.12.0", "0.14.0") and launch.model is not None:
            yield Finding(
                span=launch.model.span,
                message=f"gibberish was reported of this model, wide expert parallelism and {launch.version.name}",
                evidence=("the report's own command simulates routing, which explains it; nobody has said so there",),
                fix=Fix("compare greedy answers with one plain vLLM before you serve: baton prove"),
            )
