"""A prefill pod that tells decode to fetch its KV from localhost.

NixlConnector answers every prefill with the host and port where the KV waits. The host is VLLM_NIXL_SIDE_CHANNEL_HOST,
and localhost where that is not set: decode, in another pod, asks itself. Every pod is green, and each request hangs or
fails, while prefill logs "Releasing expired KV blocks ... retrieved by 0 remote workers". Dynamo sets the variable
itself.

Set it to the pod's address: valueFrom: {fieldRef: {fieldPath: status.podIP}}.
"""

from __future__ import annotations

from collections.abc import Iterator

from baton.check.bundle import Bundle
from baton.check.commands.launch import Launch
from baton.check.facts import disaggregation as disagg
from baton.check.finding import Finding, Fix, Harm

HARM = Harm.NOT_SERVING
SEE = ("https://docs.vllm.ai/en/latest/features/nixl_connector_usage.html",)
_POD = """\
apiVersion: v1
kind: Pod
metadata: {name: prefill}
spec:
  containers:
    - name: engine
      image: vllm/vllm-openai:v0.32.0
      args:
        - --model=/models/qwen
        - '--kv-transfer-config={"kv_connector":"NixlConnector","kv_role":"kv_producer"}'
      resources: {limits: {nvidia.com/gpu: 1}}%s
"""
FIRES = _POD % ""
SILENT = _POD % ("\n      env: [{name: VLLM_NIXL_SIDE_CHANNEL_HOST, valueFrom: {fieldRef: {fieldPath: status.podIP}}}]")
_NAME = "VLLM_NIXL_SIDE_CHANNEL_HOST"
_KINDS = ("Deployment", "StatefulSet", "ReplicaSet", "DaemonSet", "Job", "CronJob", "Pod", "LeaderWorkerSet")
_NOWHERE = ("localhost", "127.0.0.1", "::1", "0.0.0.0", "::", "")


def check(bundle: Bundle) -> Iterator[Finding]:
    """Yield a finding for every engine in a pod that gives KV out under an address only the pod itself has."""
    shared = {id(pair.prefill) for pair in bundle.pairs if pair.prefill.workload is pair.decode.workload}
    for launch in bundle.engines:
        workload = launch.workload
        if workload is None or launch.engine != "vllm" or launch.side == "decode" or id(launch) in shared:
            continue
        if workload.object.kind in _KINDS and disagg.uses_nixl(launch):
            yield from _findings(launch)


def _findings(launch: Launch) -> Iterator[Finding]:
    word = launch.env.get(_NAME)
    if word is None and not launch.is_env_complete:
        return
    if word is not None and (not word.is_known or word.value not in _NOWHERE):
        return
    said = f"is {word.value!r}" if word is not None else "is not set, and localhost by default"
    yield Finding(
        span=word.span if word is not None and word.value else launch.all_given(disagg.CONFIG)[0].written.span,
        message=f"{_NAME} {said}: decode looks for the KV in its own pod, and no request gets it, while pods are green",
        evidence=("prefill names this host to decode in kv_transfer_params.remote_host",),
        fix=Fix(f"set {_NAME} to the pod's address by valueFrom: {{fieldRef: {{fieldPath: status.podIP}}}}"),
    )
