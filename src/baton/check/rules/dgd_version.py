"""A DynamoGraphDeployment in the deprecated v1alpha1.

The operator still converts it; a later release will not. v1beta1 is another schema, not another name: services become
a list of components, and ten fields of a service one podTemplate.

Move to `nvidia.com/v1beta1` when the operator of your cluster serves it; `baton check` names the fields that go wrong.
"""

from __future__ import annotations

from collections.abc import Iterator

from baton.check.bundle import Bundle
from baton.check.finding import Finding, Fix, Harm
from baton.check.kubernetes.workload import DYNAMO_KINDS
from baton.check.yaml import tree

HARM = Harm.FRAGILE
SEE = ("https://github.com/aws-samples/aws-do-eks/issues/85", "https://github.com/ai-dynamo/dynamo/issues/8069")
FIRES = """\
apiVersion: nvidia.com/v1alpha1
kind: DynamoGraphDeployment
metadata: {name: graph}
spec:
  services:
    Planner: {componentType: planner}
"""
SILENT = """\
apiVersion: nvidia.com/v1beta1
kind: DynamoGraphDeployment
metadata: {name: graph}
spec:
  components:
    - {name: planner, type: planner}
"""


def check(bundle: Bundle) -> Iterator[Finding]:
    """Yield a finding for every graph of the old version."""
    for found in bundle.manifests.objects:
        version = tree.scalar(found.node, "apiVersion")
        if found.kind in DYNAMO_KINDS and found.api_version == "nvidia.com/v1alpha1" and version is not None:
            yield Finding(
                span=version.span,
                message=f"{found.kind} {found.api_version} is deprecated: a later operator will not take it",
                evidence=("v1beta1 is the version that the operator stores; v1alpha1 is converted",),
                fix=Fix("write it anew as nvidia.com/v1beta1: components with a podTemplate each"),
            )
