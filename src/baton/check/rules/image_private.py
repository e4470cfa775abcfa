"""An image of NVIDIA's internal registry organisation.

`nvcr.io/nvidian` is where NVIDIA's own people push development builds. Nobody outside can pull from it, whatever pull
secret they have: the pods stay in ImagePullBackOff. And what such a build holds is on record nowhere.

Name a public image (`nvcr.io/nvidia/ai-dynamo/vllm-runtime` with a release's tag), or one you have built yourself.
"""

from __future__ import annotations

from collections.abc import Iterator

from baton.check.bundle import Bundle
from baton.check.finding import Finding, Fix, Harm

HARM = Harm.FRAGILE
SEE = ("https://github.com/ai-dynamo/dynamo/pull/6274",)
_POD = """\
apiVersion: v1
kind: Pod
metadata: {name: front}
spec:
  containers:
    - name: front
      image: %s
      command: [python3, -m, dynamo.frontend]
      args: [--router-mode, kv]
"""
FIRES = _POD % "nvcr.io/nvidian/dynamo-dev/vllm-runtime:someone-dsr1-arm64"
SILENT = _POD % "nvcr.io/nvidia/ai-dynamo/vllm-runtime:1.6.1"
_INTERNAL = "nvcr.io/nvidian/"


def check(bundle: Bundle) -> Iterator[Finding]:
    """Yield a finding for every image that only NVIDIA can pull."""
    for workload in bundle.manifests.workloads:
        for container in workload.pod.containers:
            image = container.image
            if image is not None and image.is_known and image.text.value.startswith(_INTERNAL):
                yield Finding(
                    span=image.span,
                    message=f"image {image.text.value!r} is of NVIDIA's internal organisation: nobody else can pull it",
                    evidence=("nvcr.io/nvidian is closed to every account outside NVIDIA: ImagePullBackOff",),
                    fix=Fix(
                        "name a public image, such as nvcr.io/nvidia/ai-dynamo/vllm-runtime:TAG, or your own build"
                    ),
                )
