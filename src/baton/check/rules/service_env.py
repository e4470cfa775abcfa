"""A Service whose name makes Kubernetes overwrite a variable of the engine.

For every Service of a namespace, pods get variables made of its name: a Service `vllm` gives
`VLLM_PORT=tcp://10.0.0.1:8000`. vLLM reads VLLM_PORT as a number: `VLLM_PORT appears to be a URI. This may be caused by
a Kubernetes service discovery issue`, and the engine exits. The Service only has to be there before the pod, so it
works on the day it is set up and fails at the first restart.

Give the Service another name, such as `vllm-server`, or set `enableServiceLinks: false` in the pod.
"""

from __future__ import annotations

from collections.abc import Iterator

from baton.check.bundle import Bundle
from baton.check.commands.launch import Launch
from baton.check.finding import Finding, Fix, Harm
from baton.check.kubernetes.manifests import Object
from baton.check.yaml import tree

HARM = Harm.NOT_STARTING
SEE = ("https://docs.vllm.ai/en/latest/configuration/env_vars.html",)
FIRES = """\
apiVersion: v1
kind: Service
metadata: {name: vllm}
spec: {selector: {app: engine}, ports: [{port: 8000}]}
---
apiVersion: v1
kind: Pod
metadata: {name: engine, labels: {app: engine}}
spec:
  containers:
    - name: engine
      image: vllm/vllm-openai:v0.32.0
      args: [--model, m]
"""
SILENT = FIRES.replace("metadata: {name: vllm}", "metadata: {name: vllm-server}")


def check(bundle: Bundle) -> Iterator[Finding]:
    """Yield a finding for every Service whose variable an engine of its namespace reads."""
    for service in bundle.manifests.of_kind("Service"):
        if service.name is None or not _has_variables(service):
            continue
        variable = f"{service.name.upper().replace('-', '_')}_PORT"
        hit = next((launch for launch in bundle.engines if _reaches(service, launch, variable)), None)
        if hit is not None and hit.workload is not None:
            yield Finding(
                span=service.span,
                message=f"the Service {service.name!r} makes Kubernetes set {variable}=tcp://..., which vLLM reads",
                evidence=(f"{hit.version.name} reads {variable} as a number and exits at anything else",),
                fix=Fix(f"rename the Service, say {service.name}-server, or set enableServiceLinks: false in the pods"),
                also=((hit.workload.span, "this engine gets the variable"),),
            )


def _has_variables(service: Object) -> bool:
    """Whether it has an address of its own: a headless Service and an alias give no variables."""
    is_headless = tree.string(service.node, "spec.clusterIP") == "None"
    return not is_headless and tree.string(service.node, "spec.type") != "ExternalName"


def _reaches(service: Object, launch: Launch, variable: str) -> bool:
    """Whether an engine in the Service's namespace reads the variable and does not set it itself."""
    workload = launch.workload
    if workload is None or workload.object.namespace != service.namespace or not launch.reads(variable):
        return False
    if variable in launch.env or (workload.is_dynamo and workload.pod.spec is None):
        return False
    links = tree.scalar(workload.pod.spec, "enableServiceLinks")
    return links is None or links.value is True
