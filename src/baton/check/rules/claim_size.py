"""A claim smaller than the weights that go into it.

The download fills the volume and fails with `No space left on device` after an hour or two; the Job starts again and
fails again. The sum counts whole checkpoints of known size that are downloaded into the claim or served from it;
whatever else goes there comes on top.

Ask for more storage: the sum below and a tenth more for what the download keeps aside.
"""

from __future__ import annotations

from collections.abc import Iterator

from baton.check.bundle import Bundle
from baton.check.facts import checkpoints, downloads, storage
from baton.check.facts.checkpoints import GB, Checkpoint
from baton.check.finding import Finding, Fix, Harm
from baton.check.kubernetes.manifests import quantity
from baton.check.yaml import tree
from baton.check.yaml.tree import Scalar

HARM = Harm.NOT_STARTING
SEE = ("https://github.com/llm-d/llm-d/issues/857",)
_FILES = """\
apiVersion: v1
kind: PersistentVolumeClaim
metadata: {name: model-cache}
spec:
  accessModes: [ReadWriteMany]
  resources: {requests: {storage: %s}}
---
apiVersion: batch/v1
kind: Job
metadata: {name: fetch}
spec:
  template:
    spec:
      restartPolicy: Never
      containers:
        - name: fetch
          image: python:3.12-slim
          command: [sh, -c]
          args: ["hf download deepseek-ai/DeepSeek-R1 --revision 56d4cbb --local-dir /models/deepseek-r1"]
          volumeMounts: [{name: models, mountPath: /models}]
      volumes:
        - name: models
          persistentVolumeClaim: {claimName: model-cache}
"""
FIRES = _FILES % "500Gi"
SILENT = _FILES % "1Ti"
_GIB = 2**30
_ROOM = 1.1


def check(bundle: Bundle) -> Iterator[Finding]:
    """Yield a finding for every claim that cannot hold what is known to go there."""
    contents = _contents(bundle)
    for name, claim in storage.lone_claims(bundle).items() if contents else ():
        size = tree.scalar(claim.node, "spec.resources.requests.storage")
        held = contents.get(name)
        if size is not None and size.is_known and held:
            yield from _findings(name, size, list(held.values()))


def _contents(bundle: Bundle) -> dict[str, dict[str, Checkpoint]]:
    """Checkpoints by the claim they lie on, each once."""
    found: dict[str, dict[str, Checkpoint]] = {}
    for download in downloads.downloads(bundle):
        place, checkpoint = download.place, checkpoints.of_repo(download.repo.value)
        if place is not None and checkpoint is not None and download.is_whole:
            found.setdefault(place.claim, {})[checkpoint.name] = checkpoint
    for launch in bundle.engines:
        checkpoint, model = checkpoints.of_launch(launch), launch.model
        if checkpoint is None or model is None or launch.workload is None or launch.container is None:
            continue
        place = storage.place(launch.workload, launch.container, model.value) if model.value.startswith("/") else None
        if place is not None:
            found.setdefault(place.claim, {})[checkpoint.name] = checkpoint
    return found


def _findings(name: str, size: Scalar, held: list[Checkpoint]) -> Iterator[Finding]:
    total, room = sum(checkpoint.num_bytes for checkpoint in held), quantity(size.text.value)
    if room is None or room >= total:
        return
    wanted = int(total * _ROOM / _GIB / 100 + 1) * 100
    written = size.text.value
    yield Finding(
        span=size.span,
        message=f"{written} is too small for the claim {name!r}: {total / GB:,.0f} GB of weights go there",
        evidence=(
            *(checkpoint.in_words for checkpoint in held),
            f"together {total / GB:,.0f} GB; {written} is {room / GB:,.0f} GB",
        ),
        fix=Fix(f"ask for {wanted}Gi or more"),
    )
