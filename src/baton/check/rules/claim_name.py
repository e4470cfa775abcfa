"""A PersistentVolumeClaim that nothing here makes, while another with nearly its name is made.

A pod that mounts a claim which does not exist stays in Pending for ever: `persistentvolumeclaim "..." not found`.
In a DynamoGraphDeployment, `create: false` says that the claim is made elsewhere, so the operator does not help.

Name the claim as the file that makes it does.
"""

from __future__ import annotations

from collections.abc import Iterator

from baton.check.bundle import Bundle
from baton.check.edits import fixes
from baton.check.facts import storage
from baton.check.facts.similar import similar
from baton.check.finding import Finding, Fix, Harm
from baton.check.kubernetes.container import known

HARM = Harm.NOT_STARTING
SEE = ("https://github.com/ai-dynamo/dynamo/pull/4566",)
_FILES = """\
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: model-cache}
spec:
  accessModes: [ReadWriteMany]
  resources: {requests: {storage: 1500Gi}}
---
apiVersion: v1
kind: Pod
metadata: {name: look}
spec:
  containers:
    - name: look
      image: busybox:1.37
      command: [ls, /models]
      volumeMounts: [{name: models, mountPath: /models}]
  volumes:
    - name: models
      persistentVolumeClaim: {claimName: %s}
"""
FIRES = _FILES % "modelcache-pvc"
SILENT = _FILES % "model-cache"


def check(bundle: Bundle) -> Iterator[Finding]:
    """Yield a finding for every reference that the files' own claims nearly answer, once for each object and name."""
    made = storage.claims(bundle)
    if not made or len(made) < len(bundle.manifests.of_kind(storage.CLAIM)):
        return
    seen: set[tuple[int, str]] = set()
    for claim, found in storage.references(bundle):
        name = known(claim)
        if name is None or name in made or (id(found.node), name) in seen:
            continue
        seen.add((id(found.node), name))
        meant = similar(name, made)
        if meant is not None:
            yield Finding(
                span=claim.span,
                message=f"no file here makes the claim {name!r}, but {meant!r}: the pods stay in Pending",
                evidence=(f'persistentvolumeclaim "{name}" not found; the claim that the files make is {meant!r}',),
                fix=Fix(f"write {meant}, here and wherever else it is mounted", fixes.replace_text(claim.text, meant)),
                also=((made[meant].span, "the claim that is made"),),
            )
