"""--connector of dynamo.vllm, where its release refuses it or wants it.

Up to dynamo 0.9 the KV connector is named by --connector, which is nixl unless said otherwise. A --kv-transfer-config
beside that default raises "Cannot specify both --kv-transfer-config and --connector flags", also when nobody wrote
--connector. From 1.0.2 on --connector, and the variable DYN_CONNECTOR, raise a ValueError whatever their value.

Up to 0.9 write --connector none beside --kv-transfer-config, or leave both out. From 1.0.2 on write
--kv-transfer-config alone.
"""

from __future__ import annotations

from collections.abc import Iterator

from baton.check.bundle import Bundle
from baton.check.commands.launch import Launch
from baton.check.edits import fixes, insertions
from baton.check.facts.disaggregation import CONFIG, EXPLICIT_CONNECTOR, is_dynamo_between
from baton.check.finding import Finding, Fix, Harm

HARM = Harm.NOT_STARTING
SEE = ()
_POD = """\
apiVersion: v1
kind: Pod
metadata: {name: worker}
spec:
  containers:
    - name: worker
      image: nvcr.io/nvidia/ai-dynamo/vllm-runtime:0.8.1
      command: [python3, -m, dynamo.vllm]
      args:
        - --model=/models/qwen%s
        - '--kv-transfer-config={"kv_connector":"NixlConnector","kv_role":"kv_both"}'
      resources: {limits: {nvidia.com/gpu: 1}}
"""
FIRES = _POD % ""
SILENT = _POD % "\n        - --connector\n        - none"


def check(bundle: Bundle) -> Iterator[Finding]:
    """Yield a finding for every dynamo worker that stops at its connector flags."""
    for launch in bundle.engines:
        if is_dynamo_between(launch, before=EXPLICIT_CONNECTOR):
            yield from _both(launch)
        elif is_dynamo_between(launch, first=EXPLICIT_CONNECTOR):
            yield from _no_longer(launch)


def _both(launch: Launch) -> Iterator[Finding]:
    given, named = launch.all_given(CONFIG), launch.given("--connector")
    is_nixl_by_default = named is None and launch.is_complete
    if not given or not (is_nixl_by_default or (named is not None and _is_something(launch))):
        return
    by_default = " (nixl, where it is not given)" if named is None else ""
    fix = Fix("remove one of the two")
    if named is None:
        fix = Fix("add --connector none", insertions.option(launch, "--connector", "none"))
    yield Finding(
        span=given[0].written.span,
        message=f"{launch.version.name} takes {CONFIG} only with --connector none: it exits with a ValueError, "
        "and the pod restarts",
        evidence=(f"it refuses {CONFIG} beside --connector{by_default}; this is {launch.version.why}",),
        fix=fix,
        also=((named.span, "the other flag"),) if named is not None else (),
    )


def _is_something(launch: Launch) -> bool:
    named = launch.given("--connector")
    words = named.words if named is not None else ()
    return bool(words) and all(w.is_known for w in words) and [w.value for w in words] != ["none"]


def _no_longer(launch: Launch) -> Iterator[Finding]:
    named, variable = launch.given("--connector"), launch.env.get("DYN_CONNECTOR")
    if named is None and not (variable is not None and variable.is_known and variable.value):
        return
    name = "--connector" if named is not None else "DYN_CONNECTOR"
    span = named.span if named is not None else variable.span if variable is not None else launch.start
    yield Finding(
        span=span,
        message=f"{launch.version.name} refuses {name}, whatever its value: it exits with a ValueError",
        evidence=(f"since {EXPLICIT_CONNECTOR} {CONFIG} names the connector; this is {launch.version.why}",),
        fix=Fix(f"remove it; {CONFIG} names the connector", fixes.remove_option(named) if named is not None else ()),
    )
