"""A failed KV transfer that decode hides by computing the prompt again.

kv_load_failure_policy says what happens when KV does not arrive. "recompute", the default of vLLM 0.13 to 0.16, lets
the decode engine run the prefill itself: with every transfer broken all requests still get HTTP 200, at the speed of an
aggregated engine that is too small for it, and only the log of decode knows. Benchmarks of such a deployment measure
something else. "fail", the default since 0.17, fails the request.

Write "kv_load_failure_policy":"fail" on decode, and retry at the front door.
"""

from __future__ import annotations

from collections.abc import Iterator

from baton.check.bundle import Bundle
from baton.check.commands.launch import Launch
from baton.check.edits import fixes, insertions
from baton.check.facts import disaggregation as disagg
from baton.check.facts.config_keys import GivenKey
from baton.check.facts.disaggregation import CONFIG
from baton.check.finding import Edit, Finding, Fix, Harm

HARM = Harm.WASTED
SEE = (
    "https://github.com/vllm-project/vllm/issues/52234",
    "https://github.com/vllm-project/vllm/issues/49250",
)
_SCRIPT = """\
#!/bin/bash
docker run vllm/vllm-openai:v0.32.0 --model /models/qwen --kv-transfer-config \\
  '{"kv_connector":"NixlConnector","kv_role":"kv_consumer","kv_load_failure_policy":"%s"}'
"""
FIRES = _SCRIPT % "recompute"
SILENT = _SCRIPT % "fail"
_KEY = "kv_load_failure_policy"


def check(bundle: Bundle) -> Iterator[Finding]:
    """Yield a finding for every engine that loads KV and recomputes what did not come."""
    for launch in bundle.engines:
        is_decode = launch.side == "decode" and bool(disagg.connector(launch))
        if launch.side == "prefill" or not (is_decode or disagg.uses_nixl(launch)) or not launch.all_given(CONFIG):
            continue
        if launch.config(CONFIG, _KEY) != "recompute":
            continue
        key = disagg.transfer_key(launch, _KEY)
        by_default = "" if key is not None else f", the default of {launch.version.name}"
        yield Finding(
            span=disagg.value_text(key).span() if key is not None else launch.all_given(CONFIG)[-1].span,
            message=f"{_KEY} is 'recompute'{by_default}: "
            "with every transfer broken decode prefills by itself, requests get 200, and nobody is told",
            evidence=(f"this is {launch.version.why}",),
            fix=Fix(f'write "{_KEY}":"fail"', _edits(launch, key)),
        )


def _edits(launch: Launch, key: GivenKey | None) -> tuple[Edit, ...]:
    if key is not None:
        return fixes.replace_text(disagg.value_text(key), "fail")
    option = launch.given(CONFIG)
    return insertions.into_json(option, (_KEY,), "fail") if option is not None else ()
