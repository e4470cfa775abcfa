"""The claim, the download Job and the wait for it, and what happens where two recipes share them."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support import kubernetes
from support.apiserver import ApiServer

from baton.base.errors import ConfigError
from baton.recipe.deployment import Deployment, resolve
from baton.recipe.document import parse
from baton.recipe.recipe import Recipe
from baton.render import download, model_cache
from baton.render.documents import document

COMMIT = "56d4cbbb4d29f4355bab4b9a39ccb717a14ad5ad"


def deployment(name: str = "vllm-dsr1", *, model: str = "", cluster: str = "", version: str = "0.33.0") -> Deployment:
    text = f"""\
baton: 1
name: {name}
model:
  {{name: m, repo: a/b, revision: {COMMIT}, path: /model-cache/deepseek-r1, dtype: bfloat16, max_model_len: 64 {model}}}
engine: {{version: {version}}}
hardware: {{accelerator: h200}}
kv_transfer: {{buffer_device: cuda}}
roles:
  prefill: {{gpus_per_node: 1}}
  decode: {{gpus_per_node: 1}}
cluster: {{{cluster}}}
"""
    return resolve(parse(text, Recipe, source="recipe"), Path("/nowhere"))


def with_model(**fields: Any) -> Deployment:
    found = deployment()
    return Deployment(
        **{name: getattr(found, name) for name in Deployment.__slots__}  # type: ignore[attr-defined]
        | {"model": found.model.model_copy(update=fields)}
    )


def by_kind(objects: list[Any]) -> dict[str, Any]:
    return {each["kind"]: each for each in objects}


def pod_of(given: Deployment) -> dict[str, Any]:
    return by_kind(model_cache.download(given))["Job"]["spec"]["template"]["spec"]  # type: ignore[no-any-return]


def container_of(given: Deployment) -> dict[str, Any]:
    return pod_of(given)["containers"][0]  # type: ignore[no-any-return]


def test_the_claim_is_what_the_recipe_says() -> None:
    cluster = "model_cache: {claim: c, size: 3Ti, storage_class: fast}, namespace: n"
    (claim,) = model_cache.claim(deployment(cluster=cluster))
    assert (claim["metadata"]["name"], claim["metadata"]["namespace"]) == ("c", "n")
    assert claim["spec"] == {
        "accessModes": ["ReadWriteMany"],
        "resources": {"requests": {"storage": "3Ti"}},
        "storageClassName": "fast",
    }


def test_the_clusters_own_class_is_taken_and_a_claim_that_is_there_left_alone() -> None:
    (claim,) = model_cache.claim(deployment())
    assert "storageClassName" not in claim["spec"]
    assert model_cache.claim(deployment(cluster="model_cache: {create: false, claim: theirs}")) == []
    given = deployment(cluster="model_cache: {create: false, claim: theirs}")
    assert model_cache.volume(given)["persistentVolumeClaim"] == {"claimName": "theirs"}


def test_the_token_reaches_the_job_alone_and_must_be_there() -> None:
    """Fault 5 of the published recipe: another Secret's name, optional, so the token was silently unused."""
    given = deployment(cluster="hf_secret: {name: mine, key: KEY}")
    env = {each["name"]: each for each in container_of(given)["env"]}
    assert env["HF_TOKEN"]["valueFrom"] == {"secretKeyRef": {"name": "mine", "key": "KEY"}}
    assert env[download.SECRET_ENV]["value"] == "mine"
    assert "TOKEN" not in json.dumps(model_cache.wait_container(given))


def test_the_job_may_do_nothing_but_download() -> None:
    objects = by_kind(model_cache.download(deployment()))
    assert set(objects) == {"ServiceAccount", "ConfigMap", "Job"}
    assert objects["ServiceAccount"]["automountServiceAccountToken"] is False
    pod = pod_of(deployment())
    assert pod["automountServiceAccountToken"] is False
    assert pod["serviceAccountName"] == objects["ServiceAccount"]["metadata"]["name"] == "model-download"
    assert container_of(deployment())["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }


def test_everything_the_program_writes_to_is_mounted_for_writing() -> None:
    container = container_of(deployment())
    writable = {each["mountPath"] for each in container["volumeMounts"] if not each.get("readOnly")}
    env = {each["name"]: each.get("value") for each in container["env"]}
    assert writable == {"/model-cache", env["HF_HOME"], env["TMPDIR"]} == {"/model-cache", "/hf-home"}
    volumes = {each["name"] for each in pod_of(deployment())["volumes"]}
    assert {each["name"] for each in container["volumeMounts"]} == volumes


def test_the_job_runs_this_very_program_with_the_recipes_words() -> None:
    given = deployment()
    shipped = by_kind(model_cache.download(given))["ConfigMap"]["data"]["download.py"]
    assert shipped == Path(download.__file__).read_text(encoding="utf-8")
    container = container_of(given)
    assert container["image"] == "vllm/vllm-openai:v0.33.0"
    assert container["command"] == ["python3", "/opt/baton/download.py"]
    assert container["args"] == ["a/b", COMMIT, "/model-cache/deepseek-r1"]
    assert "  download.py: |\n" in document(given, model_cache.download(given))


def test_nothing_is_downloaded_where_nothing_says_from_where() -> None:
    given = with_model(repo=None, revision=None)
    assert model_cache.download(given) == []
    assert model_cache.wait_container(given) is None


def test_recipes_with_one_checkpoint_render_the_same_bytes() -> None:
    first, second = deployment("one"), deployment("two")
    for make in (model_cache.claim, model_cache.download):
        assert make(first) == make(second)


def test_another_checkpoint_changes_only_the_job() -> None:
    first, second = deployment(), with_model(path=Path("/model-cache/other"))
    changed = [
        a["kind"] for a, b in zip(model_cache.download(first), model_cache.download(second), strict=True) if a != b
    ]
    assert changed == ["Job"]
    assert model_cache.claim(first) == model_cache.claim(second)


@pytest.mark.parametrize("path", ["/models/r1", "/model-cache", "/model-cache-2/r1", "relative", None])
def test_a_checkpoint_outside_the_volume_is_refused(path: str | None) -> None:
    given = with_model(path=path and Path(path))
    for make in (model_cache.download, model_cache.wait_container):
        with pytest.raises(
            ConfigError, match=r"model\.path: got .* below cluster\.model_cache\.mount_path, /model-cache"
        ):
            make(given)


@pytest.mark.parametrize("revision", ["main", COMMIT[:12], COMMIT.upper(), f"{COMMIT}\n", f"{COMMIT}; rm -rf /"])
def test_a_revision_that_is_no_commit_is_refused(revision: str) -> None:
    given = with_model(revision=revision)
    for make in (model_cache.download, model_cache.wait_container):
        with pytest.raises(ConfigError, match=r"model\.revision: got .* 40 digits of 0-9a-f"):
            make(given)


@pytest.mark.parametrize(
    "word", ["$(HOME)", "a'b", 'a"b', "a b", "$(touch /tmp/x)", "`x`", "a\nb", "ü", "-rf", "{{x}}"]
)
def test_words_of_a_recipe_reach_programs_as_they_are(word: str) -> None:
    given = with_model(path=Path(f"/model-cache/{word}"), repo=word)
    container, wait = container_of(given), model_cache.wait_container(given)
    assert wait is not None
    assert [expanded(each) for each in container["args"]] == [word, COMMIT, f"/model-cache/{word}"]
    assert [expanded(each) for each in wait["args"][1:]] == [f"/model-cache/{word}/{download.MARKER}", word, COMMIT]
    assert word not in container["command"] + wait["command"]


def test_a_pull_secret_is_the_jobs_too() -> None:
    given = deployment(cluster="image_pull_secrets: [regcred], registry: mirror.example/x")
    assert pod_of(given)["imagePullSecrets"] == [{"name": "regcred"}]
    assert container_of(given)["image"] == "mirror.example/x/vllm/vllm-openai:v0.33.0"


@pytest.mark.parametrize("release", kubernetes.RELEASES)
def test_objects_are_valid(release: str) -> None:
    given = deployment(cluster="image_pull_secrets: [regcred], model_cache: {storage_class: fast}")
    for each in (*model_cache.claim(given), *model_cache.download(given), _pod(given)):
        assert kubernetes.faults(each, release) == []


def test_a_real_server_takes_them_and_refuses_another_checkpoint_while_the_job_is_there(api_server: ApiServer) -> None:
    cluster = "namespace: model-cache-test"
    given, other = deployment(cluster=cluster), deployment(cluster=cluster, version="0.32.0")
    objects = [*model_cache.claim(given), *model_cache.download(given)]
    text = document(given, objects)
    api_server.namespace("model-cache-test")
    assert api_server.dry_run([*objects, _pod(given)]).errors == ""
    made = api_server.kubectl("apply", "-f", "-", given=text)
    assert made.returncode == 0, made.stderr

    same = api_server.dry_run(model_cache.download(deployment("another-recipe", cluster=cluster)))
    assert ("Job", "model-download") in same.names
    refused = api_server.dry_run(model_cache.download(other))
    assert ("Job", "model-download") not in refused.names
    assert "field is immutable" in refused.errors

    selector = f"app.kubernetes.io/component!={model_cache.STORAGE}"
    gone = api_server.kubectl("delete", "--wait=false", "-o", "name", "-f", "-", "-l", selector, given=text)
    assert gone.stdout.split() == [
        "serviceaccount/model-download",
        "configmap/model-download",
        "job.batch/model-download",
    ]
    kept = api_server.kubectl("get", "pvc", "-n", "model-cache-test", "-o", "name")
    assert kept.stdout == "persistentvolumeclaim/model-cache\n"


def test_pods_wait_for_their_own_checkpoint(tmp_path: Path) -> None:
    """A marker that is not there, half a one, and another revision's are all waited on; the right one is not."""
    process = _waiting(tmp_path)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line.startswith(f"waiting for a/b at {COMMIT} in {tmp_path}")
        assert "FileNotFoundError" in line
    finally:
        process.send_signal(signal.SIGTERM)
    assert process.wait(10) == 143
    process.communicate()
    _mark(tmp_path, '{"repo": "a/b"')
    assert "JSONDecodeError" in _first_line(tmp_path)
    _mark(tmp_path, "[]")
    assert "TypeError" in _first_line(tmp_path)
    _mark(tmp_path, json.dumps({"repo": "a/b", "revision": "0" * 40, "files": {}}))
    assert f"found a/b at {'0' * 40}" in _first_line(tmp_path)
    _mark(tmp_path, json.dumps({"repo": "a/b", "revision": COMMIT, "files": {}}))
    process = _waiting(tmp_path)
    assert process.communicate(timeout=20)[0] == f"{tmp_path}/{download.MARKER}: a/b at {COMMIT} is complete\n"
    assert process.returncode == 0


def test_pods_only_read_the_volume_unless_asked() -> None:
    given = deployment(cluster="model_cache: {mount_path: /mnt/models}", model=", aliases: []")
    assert model_cache.mount(given) == {"name": "model-cache", "mountPath": "/mnt/models", "readOnly": True}
    assert model_cache.mount(given, read_only=False)["readOnly"] is False


def expanded(word: str) -> str:
    """A word as Kubernetes hands it on ("Define a Command and Arguments for a Container"): `$$` is `$`."""
    return re.sub(r"\$\$", "$", word)


def _pod(given: Deployment) -> dict[str, Any]:
    wait = model_cache.wait_container(given)
    metadata = {"name": "engine", "namespace": given.cluster.namespace}
    main = {"name": "main", "image": "x", "volumeMounts": [model_cache.mount(given)]}
    spec = {"initContainers": [wait], "containers": [main], "volumes": [model_cache.volume(given)]}
    return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}


def _waiting(folder: Path) -> subprocess.Popen[str]:
    wait = model_cache.wait_container(deployment())
    assert wait is not None
    _, code = wait["command"]
    script, _, repo, revision = map(expanded, wait["args"])
    command = [sys.executable, code, script, str(folder / download.MARKER), repo, revision]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ)


def _first_line(folder: Path) -> str:
    process = _waiting(folder)
    try:
        assert process.stdout is not None
        return process.stdout.readline()
    finally:
        process.kill()
        process.communicate()


def _mark(folder: Path, text: str) -> None:
    (folder / download.MARKER).write_text(text)
