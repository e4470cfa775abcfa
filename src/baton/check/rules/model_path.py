"""Weights served from a path that no download writes.

`hf download` without `--local-dir` fills the Hub's cache layout: `$HF_HOME/hub/models--org--name/snapshots/HASH`. An
engine that is given `/model-cache/name` finds no such folder and stops: it takes the path for a repository's name.

Give the download `--local-dir` with the path that the engines serve, or serve the repository's name with the same
HF_HOME.
"""

from __future__ import annotations

import posixpath
from collections.abc import Iterator

from baton.check.bundle import Bundle
from baton.check.commands.launch import Launch
from baton.check.facts import storage
from baton.check.facts.downloads import Download, downloads
from baton.check.facts.storage import Place
from baton.check.finding import Finding, Fix, Harm
from baton.check.shell.script import Word

HARM = Harm.NOT_STARTING
SEE = ("https://github.com/ai-dynamo/dynamo/pull/4637",)
_POD = """\
    spec:
      restartPolicy: %s
      volumes:
        - name: models
          persistentVolumeClaim: {claimName: models}
      containers:
        - name: main
          image: %s
          command: [sh, -c]
          args: ["%s"]
          volumeMounts: [{name: models, mountPath: /models}]
"""
_FILES = f"""\
apiVersion: batch/v1
kind: Job
metadata: {{name: fetch}}
spec:
  template:
{_POD % ("Never", "python:3.12-slim", "%s hf download Qwen/Qwen3-8B --revision b968826 %s")}---
apiVersion: apps/v1
kind: Deployment
metadata: {{name: qwen}}
spec:
  selector: {{matchLabels: {{app: qwen}}}}
  template:
    metadata: {{labels: {{app: qwen}}}}
{_POD % ("Always", "vllm/vllm-openai:v0.32.0", "exec vllm serve /models/qwen3-8b")}"""
FIRES = _FILES % ("HF_HOME=/models", "")
SILENT = _FILES % ("HF_HOME=/models", "--local-dir /models/qwen3-8b")


def check(bundle: Bundle) -> Iterator[Finding]:
    """Yield a finding for every engine whose model is downloaded, but to elsewhere."""
    found = [download for download in downloads(bundle) if download.is_whole]
    twice = storage.claims(bundle).keys() - storage.lone_claims(bundle).keys()
    for launch in bundle.engines if found else ():
        model = launch.model
        place = _place(launch, model)
        if model is None or place is None or not place.path or place.claim in twice:
            continue
        same = [download for download in found if _is_of(download, launch, model)]
        if same and all(_goes_elsewhere(download, place) for download in same):
            yield _finding(model, same[0])


def _finding(model: Word, download: Download) -> Finding:
    repo, path = download.repo.value, model.value
    where = download.place
    layout = f"the Hub's cache layout in {download.folder}" if download.is_cached else str(download.folder)
    return Finding(
        span=model.span,
        message=f"nothing writes {path}: the download of {repo} goes to {layout}",
        evidence=(
            f"the claim {where.claim!r} then has {_written(download, where)}" if where else "that is on no claim",
            "a path that is not there is taken for a repository's name, and the engine stops",
        ),
        fix=Fix(f"give the download --local-dir with the folder that is {path} here"),
        also=((download.invocation.command.span, "the download"),),
    )


def _written(download: Download, where: Place) -> str:
    if not download.is_cached:
        return where.path or "it at its root"
    return posixpath.join(where.path, f"models--{download.repo.value.replace('/', '--')}/snapshots/...")


def _place(launch: Launch, model: Word | None) -> Place | None:
    if model is None or not model.is_known or not model.value.startswith("/"):
        return None
    if launch.workload is None or launch.container is None:
        return None
    return storage.place(launch.workload, launch.container, model.value)


def _is_of(download: Download, launch: Launch, model: Word) -> bool:
    """Whether a download brings the model that is served: by its folder's name, or the name it is served under."""
    repo = download.repo.value.lower()
    served = launch.given("--served-model-name")
    names = [word.value.lower() for word in served.words] if served is not None else []
    folder = posixpath.basename(model.value.rstrip("/")).lower()
    tail = repo.rsplit("/", maxsplit=1)[-1]
    return download.repo.is_known and (folder == tail or (repo in names and folder in (tail, "model", "weights")))


def _goes_elsewhere(download: Download, wanted: Place) -> bool:
    where = download.place
    if where is None:
        return False
    if where.claim != wanted.claim:
        return True
    if download.is_cached:
        return not (wanted.path + "/").startswith(posixpath.join(where.path, "models--"))
    return not (wanted.path + "/").startswith(f"{where.path}/" if where.path else "")
