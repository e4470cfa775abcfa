"""Rules on pods, volumes, images, probes, networks and texts beside manifests: edges, versions, unknowns."""

import json
from pathlib import Path

import pytest

from baton.check.bundle import of_sources, read_bundle
from baton.check.facts import checkpoints, similar
from baton.check.finding import Finding, Harm
from baton.check.run import check
from baton.check.text import Source


def findings(code: str, *texts: str) -> list[Finding]:
    """Findings of one rule; texts that begin with `#!` are scripts, with `# ` Markdown, the others YAML."""
    sources = []
    for at, text in enumerate(texts):
        suffix = ".sh" if text.startswith("#!") else ".md" if text.startswith("# ") else ".yaml"
        sources.append(Source(f"folder/file{at}{suffix}", text))
    found = check(of_sources(sources)).findings
    assert not [f for f in found if f.code == "internal-error"]
    return [f for f in found if f.code == code]


def harms(code: str, *texts: str) -> list[Harm | None]:
    return [f.harm for f in findings(code, *texts)]


def pod(container: str = "", spec: str = "", image: str = "vllm/vllm-openai:v0.32.0", args: str = "") -> str:
    """A pod with one engine; `container` and `spec` are lines to add to either."""
    lines = [
        "apiVersion: v1",
        "kind: Pod",
        "metadata: {name: engine}",
        "spec:",
        *(f"  {line}" for line in spec.splitlines()),
        "  containers:",
        "    - name: engine",
        f"      image: {image}",
        f"      args: [--model, /models/qwen{args}]",
        *(f"      {line}" for line in container.splitlines()),
    ]
    return "\n".join(lines) + "\n"


def claim(name: str = "models", mode: str = "ReadWriteMany", size: str = "10Ti") -> str:
    return (
        f"apiVersion: v1\nkind: PersistentVolumeClaim\nmetadata: {{name: {name}}}\n"
        f"spec: {{accessModes: [{mode}], resources: {{requests: {{storage: {size}}}}}}}\n"
    )


R1 = "hf download deepseek-ai/DeepSeek-R1"
MOUNT = "volumeMounts: [{name: models, mountPath: /models}]"


def volume(name: str) -> str:
    return f"volumes: [{{name: models, persistentVolumeClaim: {{claimName: {name}}}}}]"


def job(script: str, claim_name: str = "models", mount: str = "/models", env: str = "[]") -> str:
    return f"""\
apiVersion: batch/v1
kind: Job
metadata: {{name: fetch}}
spec:
  template:
    spec:
      restartPolicy: Never
      volumes: [{{name: models, persistentVolumeClaim: {{claimName: {claim_name}}}}}]
      containers:
        - name: fetch
          image: python:3.12-slim
          command: [sh, -c]
          args:
            - {script}
          env: {env}
          volumeMounts: [{{name: models, mountPath: {mount}}}]
"""


@pytest.mark.parametrize(
    ("image", "count"),
    [
        ("vllm/vllm-openai", 1),
        ("vllm/vllm-openai:latest", 1),
        ("vllm/vllm-openai:nightly-abc123", 1),
        ("registry:5000/vllm/vllm-openai", 1),
        ("vllm/vllm-openai@sha256:" + "0" * 64, 0),
        ("vllm/vllm-openai:latest@sha256:" + "0" * 64, 0),
        ("registry:5000/vllm/vllm-openai:v0.32.0", 0),
        ("registry/own/vllm-openai:fix-header", 0),
        ('"vllm/vllm-openai:{{ .Values.tag }}"', 0),
        ('"vllm/vllm-openai:${TAG}"', 0),
    ],
)
def test_a_tag_that_moves(image: str, count: int) -> None:
    assert len(findings("image-tag", pod(image=image))) == count


def test_the_images_of_other_containers_are_not_the_engines() -> None:
    assert not findings("image-tag", "#!/bin/sh\ndocker run busybox:latest ls\ndocker build -t vllm-openai .\n")


@pytest.mark.parametrize(
    ("texts", "count"),
    [
        ((pod(image='"vllm/vllm-openai:$TAG"'),), 1),
        ((pod(spec=volume('"${CLAIM}"')),), 1),
        ((pod(args=', --served-model-name, "${NAME}"'),), 0),
        ((pod(container='env: [{name: A, value: "$(B)"}]'),), 0),
        ((pod(image='"vllm/vllm-openai:${TAG}"'), "#!/bin/sh\nenvsubst < file0.yaml | kubectl apply -f -\n"), 0),
        (("kind: Template\napiVersion: template.openshift.io/v1\nobjects: [{image: '${I}'}]\n",), 0),
    ],
)
def test_variables_that_nothing_expands(texts: tuple[str, ...], count: int) -> None:
    assert len(findings("image-unexpanded", *texts)) == count


def test_a_file_with_several_variables_is_made_to_be_filled_in() -> None:
    text = pod(image='"${REGISTRY}/vllm-openai:1"').replace("{name: engine}", "{name: engine, namespace: '${SPACE}'}")
    assert harms("image-unexpanded", text) == [Harm.UNKNOWN]
    assert harms("image-unexpanded", pod(image='"$VLLM_IMAGE"')) == [Harm.UNKNOWN]
    assert not findings("image-unexpanded", "# envsubst < me | kubectl apply -f -\n" + pod(image='"vllm:${TAG}"'))


@pytest.mark.parametrize(
    ("command", "count"),
    [
        ("command: [bash, -c]", 1),
        ("command: [/bin/sh, -ec]", 1),
        ("command: [--port]", 1),
        ("command: [bash, -c, 'exec vllm serve m']", 0),
        ("command: [bash, -c, -e]", 1),
        ("command: [bash, -c, -e, 'exec vllm serve m']", 0),
        ("command: [bash, -c, --, 'exec vllm serve m']", 0),
        ("command: [bash, -c, '{{ .Values.script }}']", 0),
        ("command: [bash, run.sh]", 0),
        ("command: [vllm, serve]", 0),
        ("command: []", 0),
        ("", 0),
    ],
)
def test_command_lines_without_a_program(command: str, count: int) -> None:
    """The arguments of the pod begin with --model."""
    assert len(findings("no-program", pod(container=command))) == count


def secret(name: str, key: str = "HF_TOKEN") -> str:
    return f"apiVersion: v1\nkind: Secret\nmetadata: {{name: {name}}}\nstringData: {{{key}: x}}\n"


def wanting(name: str, more: str = "", key: str = "HF_TOKEN") -> str:
    return pod(container=f"env: [{{name: T, valueFrom: {{secretKeyRef: {{name: {name}, key: {key}{more}}}}}}}]")


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ((wanting("hf-token"), secret("hf-token-secret")), [Harm.NOT_STARTING]),
        ((wanting("hf-token", ", optional: true"), secret("hf-token-secret")), [Harm.WASTED]),
        ((pod(spec="imagePullSecrets: [{name: nvcr-pull}]"), secret("nvcr-pull-secret")), [Harm.FRAGILE]),
        ((wanting("hub"), secret("hugging-face")), [Harm.NOT_STARTING]),
        ((wanting("hub", key="token"), secret("hugging-face", "token")), []),
        ((wanting("hf-token"),), []),
        ((wanting("hf-token"), secret("hf-token")), []),
        ((wanting("hf-token"), secret("'{{ .Release.Name }}-hub'")), []),
        ((wanting("'{{ .Values.secret }}'"), secret("hf-token-secret")), []),
        ((pod(container="envFrom: [{secretRef: {name: hf-token}}]"), secret("hf-token-secret")), [Harm.NOT_STARTING]),
    ],
)
def test_secrets_that_nothing_makes(texts: tuple[str, ...], expected: list[Harm]) -> None:
    assert harms("secret-name", *texts) == expected


def graph(spec: str) -> str:
    return f"apiVersion: nvidia.com/v1alpha1\nkind: DynamoGraphDeployment\nmetadata: {{name: g}}\nspec: {spec}\n"


@pytest.mark.parametrize(
    ("texts", "count"),
    [
        ((pod(MOUNT, volume("modelcache-pvc")), claim("model-cache")), 1),
        ((pod(MOUNT, volume("hub")), claim("model-cache")), 0),
        ((pod(MOUNT, volume("model-cache")),), 0),
        ((graph("{pvcs: [{name: modelcache, create: false}], services: {}}"), claim("model-cache")), 1),
        ((graph("{pvcs: [{name: modelcache, create: true}], services: {}}"), claim("model-cache")), 0),
        (
            (
                graph("{services: {a: {componentType: worker, volumeMounts: [{name: cache, mountPoint: /c}]}}}"),
                claim("cache-pvc"),
            ),
            1,
        ),
    ],
)
def test_claims_that_nothing_makes(texts: tuple[str, ...], count: int) -> None:
    assert len(findings("claim-name", *texts)) == count


@pytest.mark.parametrize(
    ("size", "script", "count"),
    [
        ("600Gi", f"{R1} --local-dir /models/r1", 1),
        ("700Gi", f"{R1} --local-dir /models/r1", 0),
        ("600Gi", "huggingface-cli download deepseek-ai/DeepSeek-R1 --cache-dir /models", 1),
        ("600Gi", f"HF_HOME=/models {R1}", 1),
        ("600Gi", f"{R1} config.json --local-dir /models/r1", 0),
        ("600Gi", f"{R1} --include '*.json' --local-dir /models/r1", 0),
        ("600Gi", f"{R1} --local-dir /tmp/r1", 0),
        ("600Gi", "hf download deepseek-ai/DeepSeek-R1-Distill-Qwen-7B --local-dir /models/r1", 0),
        ("600Gi", "hf download org/nobody-knows --local-dir /models/x", 0),
        ("'{{ .Values.size }}'", f"{R1} --local-dir /models/r1", 0),
        (
            "1000Gi",
            f"{R1} --local-dir /models/a && hf download nvidia/DeepSeek-R1-FP4 --local-dir /models/b",
            1,
        ),
        (
            "1000Gi",
            f"{R1} --local-dir /models/a && {R1} --local-dir /models/a",
            0,
        ),
    ],
)
def test_claims_too_small_for_what_goes_there(size: str, script: str, count: int) -> None:
    assert len(findings("claim-size", claim(size=size), job(script))) == count


def test_two_claims_of_one_name_are_not_judged() -> None:
    """They may be of two deployments that have nothing to do with each other."""
    script = f"{R1} --local-dir /models/r1"
    assert not findings("claim-size", claim(size="600Gi"), claim(size="600Gi"), job(script))
    assert not findings("compute-domain", domain(4), domain(4), joining())
    wrong = job("hf download org/Qwen --local-dir /models/other")
    assert not findings("model-path", claim(), claim(), wrong, served("/models/qwen"))


def test_models_served_from_a_claim_count() -> None:
    served = pod(MOUNT, volume("models")).replace("/models/qwen", "/models/DeepSeek-R1")
    assert len(findings("claim-size", claim(size="600Gi"), served)) == 1


def test_a_checkpoints_size() -> None:
    """The published files of DeepSeek-R1 are 688.6 GB."""
    found = checkpoints.of_repo("deepseek-ai/DeepSeek-R1")
    assert found is not None
    assert found.num_bytes == pytest.approx(688.6e9, rel=0.002)
    smaller = checkpoints.of_repo("nvidia/DeepSeek-R1-FP4")
    assert smaller is not None
    assert 380e9 < smaller.num_bytes < 430e9
    assert checkpoints.of_repo("deepseek-ai/DeepSeek-R1-Distill-Llama-70B") is None


def users(kind: str, replicas: int = 1) -> str:
    template = f"{{spec: {{{volume('models')}, containers: [{{name: a, image: b:1, {MOUNT}}}]}}}}"
    if kind == "LeaderWorkerSet":
        return (
            f"apiVersion: leaderworkerset.x-k8s.io/v1\nkind: {kind}\nmetadata: {{name: x}}\n"
            f"spec: {{leaderWorkerTemplate: {{size: 2, workerTemplate: {template}}}}}\n"
        )
    spec = f"{{replicas: {replicas}, template: {template}}}"
    return f"apiVersion: apps/v1\nkind: {kind}\nmetadata: {{name: x}}\nspec: {spec}\n"


@pytest.mark.parametrize(
    ("mode", "texts", "expected"),
    [
        ("ReadWriteOnce", (users("LeaderWorkerSet"),), [Harm.NOT_STARTING]),
        ("ReadWriteOnce", (users("Deployment", 2),), [Harm.FRAGILE]),
        ("ReadWriteOnce", (users("Deployment"), job("ls")), []),
        ("ReadWriteOncePod", (users("Deployment"), pod(MOUNT, volume("models"))), [Harm.FRAGILE]),
        ("ReadWriteMany", (users("LeaderWorkerSet"), users("Deployment", 9)), []),
        ("ReadWriteOnce, ReadOnlyMany", (users("Deployment", 2),), []),
        ("'{{ .Values.mode }}'", (users("LeaderWorkerSet"),), []),
    ],
)
def test_claims_of_one_node(mode: str, texts: tuple[str, ...], expected: list[Harm]) -> None:
    assert harms("claim-access", claim(mode=mode), *texts) == expected


@pytest.mark.parametrize(
    ("text", "count"),
    [
        (secret("a").replace("x}", '"<your token>"}'), 1),
        (secret("a").replace("x}", "REPLACE_ME}"), 1),
        (pod(image="your-registry/vllm-openai:v0.32.0"), 1),
        (pod(image="registry.example/<team>/vllm:1"), 1),
        (pod(spec="nodeSelector: {pool: changeme}"), 1),
        (pod(container="env: [{name: A, value: yourself}, {name: B, value: changes}]"), 0),
        (pod(container="command: [sh, -c, 'cat <file>']"), 0),
        (pod().replace("{name: engine}", "{name: engine, annotations: {note: <none>}}"), 0),
        ("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: a}\ndata: {A: your-thing}\n", 0),
        ("values: your-thing\n", 0),
        (pod().replace("{name: engine}", "{name: your-engine, labels: {app: placeholder}}"), 0),
        (pod().replace("{name: engine}", "{name: engine, namespace: your-namespace}"), 1),
        (pod().replace("{name: engine}", "{name: engine, labels: {app: <app>}}"), 1),
        (secret("your-secret") + "---\n" + pod(spec="imagePullSecrets: [{name: your-secret}]"), 0),
        (pod(spec="imagePullSecrets: [{name: your-secret}]"), 1),
    ],
)
def test_placeholders(text: str, count: int) -> None:
    assert len(findings("placeholder", text)) == count


def test_a_placeholder_of_a_variable_goes_by_its_name() -> None:
    found = findings("placeholder", pod("env: [{name: HF_TOKEN, value: your_token}]"))
    assert [f.message.split(" is ")[0] for f in found] == ["HF_TOKEN"]


def served(path: str) -> str:
    return pod(MOUNT, volume("models")).replace("/models/qwen", path)


@pytest.mark.parametrize(
    ("download", "path", "count"),
    [
        ("hf download org/Qwen --local-dir /models/qwen", "/models/qwen", 0),
        ("hf download org/Qwen --local-dir /models", "/models/qwen", 0),
        ("hf download org/Qwen --local-dir /models/other", "/models/qwen", 1),
        ("hf download org/Qwen --cache-dir /models", "/models/qwen", 1),
        ("hf download org/Qwen --cache-dir /models", "/models/models--org--Qwen/snapshots/0/qwen", 0),
        ("hf download org/Qwen --local-dir /tmp/x", "/models/qwen", 0),
        ("hf download org/Qwen --local-dir $WHERE", "/models/qwen", 0),
        ("hf download org/Llama --local-dir /models/llama", "/models/qwen", 0),
    ],
)
def test_weights_that_nothing_writes(download: str, path: str, count: int) -> None:
    assert len(findings("model-path", claim(), job(download), served(path))) == count


def test_two_downloads_of_one_model_of_which_one_is_right() -> None:
    script = "hf download org/Qwen --local-dir /models/old && hf download org/Qwen --local-dir /models/qwen"
    assert not findings("model-path", claim(), job(script), served("/models/qwen"))


@pytest.mark.parametrize(
    ("script", "count"),
    [
        ("vllm serve Qwen/Qwen3-8B", 1),
        ("vllm serve Qwen/Qwen3-8B --revision abc", 0),
        ("vllm serve /models/Qwen3-8B", 0),
        ("vllm serve models/qwen", 0),
        ("vllm serve $MODEL", 0),
        ("vllm serve Qwen/Qwen3-8B $MORE", 0),
        ("HF_HUB_OFFLINE=1 vllm serve Qwen/Qwen3-8B", 0),
        ("hf download Qwen/Qwen3-8B", 1),
        ("hf download Qwen/Qwen3-8B --revision=abc", 0),
        ("hf download --repo-type dataset org/data", 0),
    ],
)
def test_models_without_a_revision(script: str, count: int) -> None:
    container = {"name": "c", "image": "i", "command": ["bash", "-c", script]}
    text = json.dumps(
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p"}, "spec": {"containers": [container]}}
    )
    assert len(findings("revision-unpinned", text)) == count


def test_a_script_may_serve_what_the_hub_has_today() -> None:
    assert findings("revision-unpinned", "#!/bin/bash\nvllm serve Qwen/Qwen3-8B\n") == []


@pytest.mark.parametrize(
    ("script", "names"),
    [
        ("pip install -q a b==1", "a"),
        ('python3 -m pip install --upgrade a[x] "b>=2"', "a[x], b>=2"),
        ("uv pip install a", "a"),
        ("pip install -r requirements.txt", None),
        ("pip install -c pins.txt a", None),
        ("pip install --upgrade pip", None),
        ("pip install -e . ./wheel.whl git+https://example.org/a@0123", None),
        ("pip install --index-url https://example.org/simple a==1", None),
        ("apt-get install a", None),
    ],
)
def test_packages_without_a_version(script: str, names: str | None) -> None:
    found = findings("pip-unpinned", job(f"'{script}'"))
    assert [f.message for f in found] == (
        [f"pip installs {names} without a version, each time the container starts"] if names else []
    )


def test_what_a_person_installs_by_hand_is_theirs() -> None:
    assert not findings("pip-unpinned", "#!/bin/sh\npip install a\n")


TWO = ', --tensor-parallel-size, "2"'


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (pod(args=TWO), [Harm.NOT_STARTING]),
        (pod(args=TWO, image="vllm/vllm-openai:v0.24.0"), [Harm.FRAGILE]),
        (pod(args=TWO, image="own/vllm-openai:x"), [Harm.FRAGILE]),
        (pod(args=', --data-parallel-size, "4"'), [Harm.FRAGILE]),
        (pod(args=', --data-parallel-size, "4", --data-parallel-rank, "1"'), []),
        (pod(), []),
        (pod(args=TWO, spec="hostIPC: true"), []),
        (pod(args=TWO, container="volumeMounts: [{name: s, mountPath: /dev/shm}]"), []),
        (
            pod(
                args=TWO,
                container="volumeMounts: [{name: s, mountPath: /dev/shm}]",
                spec="volumes: [{name: s, emptyDir: {medium: Memory, sizeLimit: 128Mi}}]",
            ),
            [Harm.NOT_STARTING],
        ),
        (pod(args=TWO).replace("v1\nkind: Pod", "example.org/v1\nkind: Server"), []),
    ],
)
def test_shared_memory(text: str, expected: list[Harm]) -> None:
    assert harms("shared-memory", text) == expected


@pytest.mark.parametrize(("size", "count"), [("51Gi", 0), ("52Gi", 1), ("'{{ .Values.shm }}'", 0), ("lots", 0)])
def test_shared_memory_near_the_limit(size: str, count: int) -> None:
    text = pod(
        container="volumeMounts: [{name: s, mountPath: /dev/shm}]\nresources: {limits: {memory: 64Gi}}",
        spec=f"volumes: [{{name: s, emptyDir: {{medium: Memory, sizeLimit: {size}}}}}]",
    )
    assert len(findings("shared-memory-limit", text)) == count


NIXL = ', --kv-transfer-config, \'{"kv_connector":"NixlConnector","kv_role":"kv_both"}\''
GPU = "resources: {limits: {nvidia.com/gpu: 1}}"


@pytest.mark.parametrize(
    ("text", "count"),
    [
        (pod(GPU, args=NIXL), 1),
        (pod(GPU), 0),
        (pod(args=NIXL), 0),
        (pod(GPU, args=NIXL.replace("Nixl", "LMCache")), 0),
        (pod(GPU + "\nsecurityContext: {privileged: true}", args=NIXL), 0),
        (pod(GPU, "hostNetwork: true", args=NIXL), 0),
        (pod(GPU.replace("1}}", "1, vpc.amazonaws.com/efa: 4}}"), args=NIXL), 0),
        (pod(GPU.replace("1}}", "1, openshift.io/mlnx_vfs: 1}}"), args=NIXL), 0),
        (pod(GPU, "resourceClaims: [{name: a, resourceClaimTemplateName: nics}]", args=NIXL), 0),
        (pod(GPU + "\nenv: [{name: UCX_TLS, value: tcp}]", args=NIXL), 0),
        (pod(GPU, args=NIXL).replace("{name: engine}", "{name: e, annotations: {k8s.v1.cni.cncf.io/networks: a}}"), 0),
    ],
)
def test_transfers_without_an_rdma_device(text: str, count: int) -> None:
    assert len(findings("rdma-resource", text)) == count


@pytest.mark.parametrize(
    ("resource", "security", "count"),
    [
        ("rdma/hca_shared_devices_a: 1", "", 1),
        ("rdma/ib: 1", "securityContext: {capabilities: {add: [SYS_RESOURCE]}}", 1),
        ("rdma/ib: 1", "securityContext: {capabilities: {add: [CAP_IPC_LOCK]}}", 0),
        ("rdma/ib: 1", "securityContext: {privileged: true}", 0),
        ("vpc.amazonaws.com/efa: 1", "", 0),
        ("nvidia.com/gpu: 1", "", 0),
    ],
)
def test_locked_memory(resource: str, security: str, count: int) -> None:
    assert len(findings("ipc-lock", pod(f"resources: {{limits: {{{resource}}}}}\n{security}"))) == count


@pytest.mark.parametrize(
    ("probe", "count"),
    [
        ("{timeoutSeconds: 600}", 1),
        ("{timeoutSeconds: 599}", 0),
        ("{timeoutSeconds: 30, failureThreshold: 1}", 0),
        ("{timeoutSeconds: 600, periodSeconds: 600}", 0),
        ("{timeoutSeconds: 601, periodSeconds: 600}", 1),
        ("{timeoutSeconds: 60, periodSeconds: '{{ .Values.period }}'}", 0),
        ("{}", 0),
    ],
)
def test_probes_that_wait_longer_than_their_period(probe: str, count: int) -> None:
    assert len(findings("probe-timeout", pod(f"readinessProbe: {probe}"))) == count


@pytest.mark.parametrize(
    ("container", "model", "count"),
    [
        ("livenessProbe: {initialDelaySeconds: 30}", "qwen", 0),
        ("livenessProbe: {initialDelaySeconds: 29}", "qwen", 1),
        ("livenessProbe: {initialDelaySeconds: 300}", "deepseek-r1", 1),
        ("startupProbe: {failureThreshold: 40}", "deepseek-r1", 1),
        ("startupProbe: {failureThreshold: 41}", "deepseek-r1", 0),
        ("startupProbe: {failureThreshold: '{{ .Values.n }}'}", "deepseek-r1", 0),
        ("startupProbe: {failureThreshold: 41}\nlivenessProbe: {failureThreshold: 1}", "qwen", 1),
        ("readinessProbe: {failureThreshold: 1}", "deepseek-r1", 0),
        ("", "deepseek-r1", 0),
    ],
)
def test_probes_and_the_time_to_load(container: str, model: str, count: int) -> None:
    """688 GB at 2 GB/s and a minute make 404 s."""
    assert len(findings("probe-budget", pod(container).replace("/models/qwen", f"/models/{model}"))) == count


def domain(nodes: int | str) -> str:
    return (
        "apiVersion: resource.nvidia.com/v1beta1\nkind: ComputeDomain\nmetadata: {name: d}\n"
        f"spec: {{numNodes: {nodes}, channel: {{resourceClaimTemplate: {{name: d-channel}}}}}}\n"
    )


def joining(gpus: int = 4, replicas: str = "1", template: str = "d-channel", nodes: int = 2) -> str:
    return graph(
        f"{{services: {{a: {{componentType: worker, replicas: {replicas}, multinode: {{nodeCount: {nodes}}},"
        f" resources: {{limits: {{gpu: {gpus}}}}},"
        f" extraPodSpec: {{resourceClaims: [{{name: c, resourceClaimTemplateName: {template}}}]}}}}}}}}"
    )


@pytest.mark.parametrize(
    ("texts", "expected"),
    [
        ((domain(2), joining()), []),
        ((domain(4), joining()), [Harm.FRAGILE]),
        ((domain(1), joining()), [Harm.FRAGILE]),
        ((domain(1), joining(gpus=1)), []),
        ((domain(0), joining()), []),
        ((domain(4), joining(replicas="2")), []),
        ((domain(4), joining(replicas="'{{ .Values.n }}'")), []),
        ((domain(4),), []),
        ((domain(2), joining(template="d-channels")), [Harm.NOT_STARTING]),
        ((joining(template="other"),), []),
    ],
)
def test_compute_domains(texts: tuple[str, ...], expected: list[Harm]) -> None:
    assert harms("compute-domain", *texts) == expected


@pytest.mark.parametrize(
    ("path", "limits", "expected"),
    [
        ("/mnt/models", "{}", [Harm.UNKNOWN]),
        ("/dev/infiniband", "{}", [Harm.FRAGILE]),
        ("/dev/infiniband", "{vpc.amazonaws.com/efa: 4}", [Harm.WASTED]),
        ("/dev/shm", "{}", []),
        ("/usr/local/nvidia", "{}", []),
        ("'{{ .Values.path }}'", "{}", []),
    ],
)
def test_folders_of_the_node(path: str, limits: str, expected: list[Harm]) -> None:
    text = pod(f"resources: {{limits: {limits}}}", f"volumes: [{{name: a, hostPath: {{path: {path}}}}}]")
    assert harms("host-path", text) == expected


@pytest.mark.parametrize(
    ("env", "args", "expected"),
    [
        ("GLOO_SOCKET_IFNAME=eth0", "--tensor-parallel-size 2", [Harm.FRAGILE]),
        ("GLOO_SOCKET_IFNAME=eth0", "", []),
        ("GLOO_SOCKET_IFNAME=eth0 NCCL_SOCKET_IFNAME=eth0", "--tensor-parallel-size 2", []),
        ("GLOO_SOCKET_IFNAME=^docker0,lo", "", [Harm.NOT_STARTING]),
        ("GLOO_SOCKET_IFNAME==eth0", "", [Harm.NOT_STARTING]),
        ("GLOO_SOCKET_IFNAME=$(first_interface)", "--tensor-parallel-size 2", []),
        ("NCCL_SOCKET_IFNAME=^docker0", "--tensor-parallel-size 2", []),
    ],
)
def test_interface_names(env: str, args: str, expected: list[Harm]) -> None:
    assert harms("interface-name", f"#!/bin/bash\n{env} vllm serve /m/qwen {args}\n") == expected


@pytest.mark.parametrize(
    ("metadata", "variable", "count"),
    [
        ("{name: e}", "{name: POD_NAMESPACE, value: a}", 1),
        ("{name: e, namespace: b}", "{name: POD_NAMESPACE, value: a}", 1),
        ("{name: e, namespace: a}", "{name: POD_NAMESPACE, value: a}", 0),
        ("{name: e}", "{name: POD_NAMESPACE, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}", 0),
        ("{name: e}", "{name: DYN_NAMESPACE, value: dynamo}", 0),
        ("{name: e}", "{name: DYN_PARENT_DGD_K8S_NAME, value: g}, {name: DYN_NAMESPACE, value: a-g}", 1),
    ],
)
def test_namespaces_that_are_fixed(metadata: str, variable: str, count: int) -> None:
    text = pod(f"env: [{variable}]").replace("{name: engine}", metadata, 1)
    assert len(findings("namespace-fixed", text)) == count


@pytest.mark.parametrize(
    ("text", "messages"),
    [
        (graph("{components: []}"), ["spec of v1alpha1 has no field 'components'"]),
        (graph("{services: {a: {env: []}}}"), ["a service of v1alpha1 has no field 'env'"]),
        (
            graph("{services: {a: {volumeMounts: [{name: b, mountPath: /b}]}}}"),
            ["volumeMounts here take mountPoint, not mountPath"],
        ),
        (
            graph("{services: {a: {extraPodSpec: {mainContainer: {volumeMounts: [{name: b, mountPoint: /b}]}}}}}"),
            ["volumeMounts here take mountPath, not mountPoint"],
        ),
        (graph("{services: {a: {envs: [], volumeMounts: [{name: b, mountPoint: /b}]}}}"), []),
        (
            graph("{services: {}, pvcs: []}").replace("alpha", "beta"),
            ["spec of v1beta1 has no field 'services'", "spec of v1beta1 has no field 'pvcs'"],
        ),
        (graph("{services: {}}").replace("nvidia.com", "example.org"), []),
    ],
)
def test_fields_of_the_other_version(text: str, messages: list[str]) -> None:
    assert [f.message for f in findings("dgd-schema", text)] == [f"{m}: it is refused, or dropped" for m in messages]


def test_a_path_that_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "hub.yaml").write_text("")
    readme = tmp_path / "a" / "b" / "README.md"
    readme.parent.mkdir(parents=True)
    (readme.parent / "deploy.yaml").write_text("")
    readme.write_text(
        "Run `kubectl apply -f ../secret/hub.yaml`, `kubectl apply -f deploy.yaml -n x`, `kubectl create -f $FILE`,\n"
        "`kubectl apply -f https://example.org/a.yaml`, `kubectl apply -f -`, `kubectl apply -f a/b/deploy.yaml`,\n"
        "`kubectl delete -f gone.yaml`.\n"
    )
    found = [f for f in check(read_bundle([readme])).findings if f.code == "apply-path"]
    assert [f.span.written for f in found] == ["../secret/hub.yaml"]
    assert [e.text for f in found if f.fix for e in f.fix.edits] == ["../../secret/hub.yaml"]


def test_a_path_is_not_judged_where_the_text_moves_on(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("```bash\ncd recipes\nkubectl apply -f deploy.yaml\n```\n")
    assert not [f for f in check(read_bundle([readme])).findings if f.code == "apply-path"]


SERVED = "#!/bin/bash\nexport VLLM_A=1 NCCL_DEBUG=INFO\nvllm serve /m --max-num-seqs 64\n"


@pytest.mark.parametrize(
    ("line", "count"),
    [
        ("`--max-num-seqs 64` and `VLLM_A=1`", 0),
        ("`--max-num-seqs=512`", 1),
        ("`--block-size 16`", 1),
        ("`VLLM_A=2`", 1),
        ("`NCCL_IB_HCA=mlx5`", 1),
        ("`--timeout=6000s`", 0),
        ("`HOME=/root`", 0),
        ("Do not use `--max-num-seqs 512`", 0),
        ("The default is `--max-num-seqs 512`", 0),
        ("Adjust `NCCL_SOCKET_IFNAME` in the manifest", 1),
        ("Adjust `NCCL_DEBUG` in the manifest", 0),
        ("`NCCL_SOCKET_IFNAME` names the interface", 0),
    ],
)
def test_texts_that_disagree(line: str, count: int) -> None:
    assert len(findings("readme-disagrees", f"# Notes\n\n{line}\n", SERVED)) == count


def test_a_text_is_not_judged_where_the_launch_is_not_known() -> None:
    assert not findings("readme-disagrees", "# Notes\n\n`--block-size 16`\n", SERVED.replace("64", "64 $MORE"))


@pytest.mark.parametrize(
    ("timeout", "count"),
    [("5400s", 1), ("1h30m", 1), ("2h", 0), ("-1s", 0), ("$LIMIT", 0), ("soon", 0)],
)
def test_a_wait_that_is_too_short(timeout: str, count: int) -> None:
    """688 GB at 1 Gbit/s are 5,505 s."""
    text = f"# Notes\n\n   ```bash\n   kubectl wait --for=condition=Complete job/fetch --timeout={timeout}\n   ```\n"
    download = job(f"{R1} --local-dir /models/r1")
    assert len(findings("download-timeout", text, download)) == count


@pytest.mark.parametrize(
    ("name", "others", "expected"),
    [
        ("hf-token", ["hf-token-secret"], "hf-token-secret"),
        ("modelcache-pvc", ["model-cache"], "model-cache"),
        ("hub-cache", ["model-cache"], None),
        ("model-cache", ["model-cache"], None),
        ("secret", ["secrets"], None),
        ("a", [], None),
    ],
)
def test_names_that_are_likely_one(name: str, others: list[str], expected: str | None) -> None:
    assert similar.similar(name, others) == expected
