"""A claim of one node, mounted by pods of several.

ReadWriteOnce lets one node mount the volume (ReadWriteOncePod one pod). Pods on a second node stay in ContainerCreating
with `Multi-Attach error`; a replica that spans nodes then waits for its other half until its own timeout ends it.

Use a storage class with ReadWriteMany, ReadOnlyMany for weights that are only read, or a claim for each node.
"""

from __future__ import annotations

from collections.abc import Iterator

from baton.check.bundle import Bundle
from baton.check.facts import storage
from baton.check.finding import Finding, Fix, Harm
from baton.check.kubernetes.container import known
from baton.check.kubernetes.manifests import Object, Workload
from baton.check.yaml import tree

HARM = Harm.NOT_STARTING
SEE = ("https://github.com/ai-dynamo/modelexpress/issues/112",)
_FILES = """\
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: models}
spec:
  accessModes: [%s]
  resources: {requests: {storage: 100Gi}}
---
apiVersion: leaderworkerset.x-k8s.io/v1
kind: LeaderWorkerSet
metadata: {name: group}
spec:
  leaderWorkerTemplate:
    size: 2
    workerTemplate:
      spec:
        containers:
          - name: worker
            image: busybox:1.37
            command: [ls, /models]
            volumeMounts: [{name: models, mountPath: /models}]
        volumes:
          - name: models
            persistentVolumeClaim: {claimName: models}
"""
FIRES = _FILES % "ReadWriteOnce"
SILENT = _FILES % "ReadWriteMany"
_ONE = ("ReadWriteOnce", "ReadWriteOncePod")
_PASSING = ("Job", "CronJob")


def check(bundle: Bundle) -> Iterator[Finding]:
    """Yield a finding for every claim of one node that more than one node, or pod, will ask for."""
    for name, claim in storage.lone_claims(bundle).items():
        modes = tree.items(claim.node, "spec.accessModes")
        scalars = [mode for mode in modes if isinstance(mode, tree.Scalar)]
        if not scalars or not all(known(mode) in _ONE for mode in scalars):
            continue
        users = [w for w in bundle.manifests.workloads if name in map(known, w.pod.claims.values())]
        lasting = [w for w in users if w.object.kind not in _PASSING]
        wide = next((w for w in lasting if w.nodes > 1 and w.is_nodes_known), None)
        pods = sum((w.replicas if w.replicas is not None else 1) for w in lasting)
        if wide is not None:
            yield _finding(claim, scalars[0], wide, f"{wide.name} runs on {wide.nodes} nodes", Harm.NOT_STARTING)
        elif pods > 1:
            said = f"{pods} pods mount it"
            yield _finding(claim, scalars[0], lasting[-1], said, Harm.FRAGILE)


def _finding(claim: Object, mode: tree.Scalar, user: Workload, said: str, harm: Harm) -> Finding:
    one = "one pod" if mode.text.value == "ReadWriteOncePod" else "one node"
    result = "the others stay in ContainerCreating" if harm is Harm.NOT_STARTING else "only those on one node start"
    return Finding(
        span=mode.span,
        message=f"the claim {claim.name!r} is {mode.text.value}, for {one}, but {said}: {result}",
        evidence=("the attach controller refuses the second node with a Multi-Attach error",),
        fix=Fix("use a storage class that has ReadWriteMany, or ReadOnlyMany where pods only read"),
        also=((user.span, "mounts it"),),
        harm=harm,
    )
