"""Files moved to another release: only what must change does, each stays what it was, and checks clean."""

import difflib
from pathlib import Path

import pytest
import yaml

from baton.base.errors import ConfigError
from baton.catalogue.engine import versions
from baton.check.bundle import of_sources
from baton.check.migrate import Migration, migrate
from baton.check.run import check
from baton.check.text import Source

NEWEST = f"vllm-{versions('vllm')[-1]}"
RECIPE = Path(__file__).parents[4] / "recipes" / "tiny-local.yaml"
HOPPER = Path(__file__).parents[1] / "corpus" / "published" / "hopper_seed" / "deploy.yaml"

SCRIPT = r"""#!/bin/bash
# started by hand on the first node
export VLLM_USE_V1=1
export VLLM_ATTENTION_BACKEND=FLASHMLA   # faster here
export VLLM_ALL2ALL_BACKEND=deepep_low_latency
# tuned for a week
export VLLM_MOE_DP_CHUNK_SIZE=384
pip install vllm==0.11.0
vllm serve deepseek-ai/DeepSeek-R1 --revision 56d4cbbb4d29f4355bab4b9a39ccb717a14ad5ad \
  --tensor-parallel-size 1 --data-parallel-size 8 --enable-expert-parallel \
  --swap-space 16 \
  --disable-log-requests \
  --num-redundant-experts 32 --enable-eplb \
  --cuda-graph-sizes 128 256 512 \
  --compilation-config '{"pass_config":{"enable_noop":true},"cudagraph_mode":"FULL_DECODE_ONLY"}' \
  --max-num-seqs 512 --max-num-batched-tokens 512
"""
SCRIPT_CHANGES = r"""
-export VLLM_USE_V1=1
-export VLLM_ATTENTION_BACKEND=FLASHMLA   # faster here
-export VLLM_ALL2ALL_BACKEND=deepep_low_latency
-export VLLM_MOE_DP_CHUNK_SIZE=384
-pip install vllm==0.11.0
+pip install vllm==0.33.0
-  --swap-space 16 \
-  --disable-log-requests \
-  --num-redundant-experts 32 --enable-eplb \
-  --cuda-graph-sizes 128 256 512 \
-  --compilation-config '{"pass_config":{"enable_noop":true},"cudagraph_mode":"FULL_DECODE_ONLY"}' \
-  --max-num-seqs 512 --max-num-batched-tokens 512
+  --no-enable-log-requests \
+  --eplb-config.num_redundant_experts 32 --enable-eplb \
+  --cudagraph-capture-sizes 128 256 512 \
+  --compilation-config '{"pass_config":{"eliminate_noops":true},"cudagraph_mode":"FULL_DECODE_ONLY"}' \
+  --max-num-seqs 512 --max-num-batched-tokens 512 \
+  --attention-backend FLASHMLA \
+  --all2all-backend deepep_low_latency
"""

DEPLOYMENT = """\
apiVersion: apps/v1
kind: Deployment
metadata: {name: engine}   # the only one
spec:
  selector: {matchLabels: {app: engine}}
  template:
    metadata: {labels: {app: engine}}
    spec:
      containers:
        - name: engine
          image: vllm/vllm-openai:v0.11.0@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
          args:
            - --model=m
            # memory on the host
            - --swap-space
            - "16"   # GiB
            - --disable-log-requests
            - --num-redundant-experts=32
            - --enable-eplb
            - --eplb-log-balancedness
            - --max-num-seqs
            - "512" # by measurement
          env:
            # faster
            - name: VLLM_ATTENTION_BACKEND
              value: FLASHMLA
            - {name: VLLM_USE_V1, value: "1"}
            - name: HF_HOME
              value: /cache
"""
DEPLOYMENT_CHANGES = """
-          image: vllm/vllm-openai:v0.11.0@sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef
+          image: vllm/vllm-openai:v0.33.0
-            - --swap-space
-            - "16"   # GiB
-            - --disable-log-requests
-            - --num-redundant-experts=32
+            - --no-enable-log-requests
+            - --eplb-config.num_redundant_experts=32
-            - --eplb-log-balancedness
+            - --eplb-config.log_balancedness=true
+            - --attention-backend
+            - FLASHMLA
-            - name: VLLM_ATTENTION_BACKEND
-              value: FLASHMLA
-            - {name: VLLM_USE_V1, value: "1"}
"""

POD = "apiVersion: v1\nkind: Pod\nmetadata: {name: engine}\nspec:\n  containers:\n    - name: engine\n"
FLOW = f"""{POD}\
      image: vllm/vllm-openai:v0.14.1
      args: [--model, m, --swap-space, '4', --disable-log-requests, "--max-num-seqs=4"]
      env: [{{name: VLLM_ATTENTION_BACKEND, value: FLASHMLA}}, {{name: A, value: b}}]
"""
FLOW_CHANGES = """
-      image: vllm/vllm-openai:v0.14.1
-      args: [--model, m, --swap-space, '4', --disable-log-requests, "--max-num-seqs=4"]
-      env: [{name: VLLM_ATTENTION_BACKEND, value: FLASHMLA}, {name: A, value: b}]
+      image: vllm/vllm-openai:v0.33.0
+      args: [--model, m, --no-enable-log-requests, "--max-num-seqs=4", "--attention-backend", "FLASHMLA"]
+      env: [{name: A, value: b}]
"""

BLOCK = f"""{POD}\
      image: vllm/vllm-openai:v0.11.0
      command: [bash, -c]
      args:
        - |
          set -e
          # the V1 engine
          export VLLM_USE_V1=1
          VLLM_ATTENTION_BACKEND=FLASHMLA exec vllm serve m \\
            --max-num-seqs 16 --enable-eplb --eplb-config '{{"window_size": 10}}' \\
            --num-redundant-experts 4 \\
            --swap-space 4
      env:
        - name: VLLM_MOE_DP_CHUNK_SIZE
          value: "384"
"""
BLOCK_CHANGES = """
-      image: vllm/vllm-openai:v0.11.0
+      image: vllm/vllm-openai:v0.33.0
-          export VLLM_USE_V1=1
-          VLLM_ATTENTION_BACKEND=FLASHMLA exec vllm serve m \\
-            --max-num-seqs 16 --enable-eplb --eplb-config '{"window_size": 10}' \\
-            --num-redundant-experts 4 \\
-            --swap-space 4
-      env:
-        - name: VLLM_MOE_DP_CHUNK_SIZE
-          value: "384"
+          exec vllm serve m \\
+            --max-num-seqs 16 --enable-eplb --eplb-config '{"num_redundant_experts": 4, "window_size": 10}' \\
+            --attention-backend FLASHMLA
"""

LEADER_WORKER_SET = """\
apiVersion: leaderworkerset.x-k8s.io/v1
kind: LeaderWorkerSet
metadata: {name: engine}
spec:
  leaderWorkerTemplate:
    size: 2
    leaderTemplate:
      spec:
        containers:
          - name: leader
            image: vllm/vllm-openai:v0.11.0
            command: ["sh", "-c", "vllm serve m -dp 2 --data-parallel-size-local 1 -ep --swap-space 4"]
            env: &env
              - name: VLLM_ALL2ALL_BACKEND
                value: deepep_low_latency
              - name: VLLM_LOGGING_LEVEL
                value: INFO
    workerTemplate:
      spec:
        containers:
          - name: worker
            image: vllm/vllm-openai:v0.11.0
            command: [vllm, serve, m, -dp, "2", --data-parallel-size-local, "1", -ep, --headless]
            env: *env
"""
LEADER_WORKER_SET_CHANGES = """
-            image: vllm/vllm-openai:v0.11.0
-            command: ["sh", "-c", "vllm serve m -dp 2 --data-parallel-size-local 1 -ep --swap-space 4"]
+            image: vllm/vllm-openai:v0.33.0
+            command: ["sh", "-c", "vllm serve m -dp 2 --data-parallel-size-local 1 -ep \
--all2all-backend deepep_low_latency"]
-              - name: VLLM_ALL2ALL_BACKEND
-                value: deepep_low_latency
-            image: vllm/vllm-openai:v0.11.0
-            command: [vllm, serve, m, -dp, "2", --data-parallel-size-local, "1", -ep, --headless]
+            image: vllm/vllm-openai:v0.33.0
+            command: [vllm, serve, m, -dp, "2", --data-parallel-size-local, "1", -ep, --headless, \
--all2all-backend, deepep_low_latency]
"""

SBATCH = r"""#!/bin/bash
#SBATCH --nodes=2
#SBATCH --export=ALL,VLLM_USE_V1=1
#SBATCH --gres=gpu:8
export VLLM_ALL2ALL_BACKEND=deepep_low_latency HF_HOME=/cache
pip install 'vllm==0.11.0.post1'
srun bash -c "VLLM_USE_V1=1 vllm serve m \
  --swap-space 16 --disable-log-requests \
  --enable-expert-parallel --data-parallel-size 2"
"""
SBATCH_CHANGES = r"""
-export VLLM_ALL2ALL_BACKEND=deepep_low_latency HF_HOME=/cache
-pip install 'vllm==0.11.0.post1'
-srun bash -c "VLLM_USE_V1=1 vllm serve m \
-  --swap-space 16 --disable-log-requests \
-  --enable-expert-parallel --data-parallel-size 2"
+export HF_HOME=/cache
+pip install 'vllm==0.33.0'
+srun bash -c "vllm serve m \
+  --no-enable-log-requests \
+  --enable-expert-parallel --data-parallel-size 2 \
+  --all2all-backend deepep_low_latency"
"""

CASES = {
    "script.sh": (SCRIPT, SCRIPT_CHANGES),
    "deployment.yaml": (DEPLOYMENT, DEPLOYMENT_CHANGES),
    "flow.yaml": (FLOW, FLOW_CHANGES),
    "block.yaml": (BLOCK, BLOCK_CHANGES),
    "leaderworkerset.yaml": (LEADER_WORKER_SET, LEADER_WORKER_SET_CHANGES),
    "job.sbatch": (SBATCH, SBATCH_CHANGES),
}


def moved(text: str, name: str = "file.yaml", to: str = NEWEST) -> Migration:
    return migrate(Source(name, text), to=to)


def difference(before: str, after: str) -> str:
    """The lines that went and came."""
    lines = difflib.unified_diff(before.splitlines(), after.splitlines(), lineterm="", n=0)
    return "\n" + "".join(f"{line}\n" for line in lines if not line.startswith(("---", "+++", "@@")))


def of_release(text: str, name: str) -> list[str]:
    """What is wrong with a file because of its release."""
    codes = ("removed-", "deprecated-", "unknown-", "bad-", "lost-", "flag-", "env-")
    found = check(of_sources([Source(name, text)])).findings
    return [f"{f.span.line}: {f.code}: {f.message}" for f in found if f.code.startswith(codes)]


@pytest.mark.parametrize("name", CASES)
def test_a_file_of_the_first_releases_moves_to_the_newest(name: str) -> None:
    """Line by line what changes, nothing is left, and a second time changes nothing."""
    before, changes = CASES[name]
    migration = moved(before, name)
    assert difference(before, migration.text) == changes
    assert of_release(migration.text, name) == []
    assert [f.message for f in migration.left] == []
    again = moved(migration.text, name)
    assert (again.text, again.changes) == (migration.text, ())
    if name.endswith(".yaml"):
        assert [*yaml.safe_load(migration.text)] == [*yaml.safe_load(before)]


@pytest.mark.parametrize("name", CASES)
def test_every_change_says_why(name: str) -> None:
    """By line of the file as it was; for each name that went, since when."""
    before, _ = CASES[name]
    changes = moved(before, name).changes
    assert [c.line for c in changes] == sorted(c.line for c in changes)
    for change in changes:
        assert "gone in" in change.reason or change.reason.startswith("the move to vllm ")
    lines = before.splitlines()
    swap = next((c for c in changes if c.done.startswith("remove --swap-space")), None)
    assert swap is None or "--swap-space" in lines[swap.line - 1]
    assert swap is None or swap.see == ("https://github.com/vllm-project/vllm/pull/36216",)


def recipe(tmp_path: Path, flags: str, env: str = "") -> tuple[str, str]:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text("{}")
    text = RECIPE.read_text().replace("0.32.0", "0.11.0").replace("../models/tiny-r1/checkpoint", str(model))
    kept = [line for line in text.splitlines(keepends=True) if "scale-out" not in line and "backend:" not in line]
    text = "".join(kept).replace("    max-num-seqs: 16\n", f"{flags}    max-num-seqs: 16\n")
    return str(tmp_path / "recipe.yaml"), text.replace(
        "  prefill: {}\n", f"  prefill:\n{env}" if env else "  prefill: {}\n"
    )


def test_a_recipe_moves_to_the_newest(tmp_path: Path) -> None:
    """Keys are renamed without dashes, entries go whole, an old flag becomes a key of a config."""
    flags = (
        "    swap-space: 4   # GiB\n    disable-log-requests: true\n    enable-eplb: true\n"
        "    num-redundant-experts: 2\n    eplb-window-size: 10\n    cuda-graph-sizes: [1, 16]\n"
        "    compilation-config: {pass_config: {enable_noop: true}, level: 0}\n"
    )
    name, before = recipe(tmp_path, flags, "    env:\n      VLLM_ATTENTION_BACKEND: CPU_MLA\n")
    migration = moved(before, name)
    assert (
        difference(before, migration.text)
        == """
-  version: 0.11.0
+  version: 0.33.0
-    swap-space: 4   # GiB
-    disable-log-requests: true
+    enable-log-requests: false
-    num-redundant-experts: 2
-    eplb-window-size: 10
-    cuda-graph-sizes: [1, 16]
-    compilation-config: {pass_config: {enable_noop: true}, level: 0}
+    eplb-config: {window_size: 10, num_redundant_experts: 2}
+    cudagraph-capture-sizes: [1, 16]
+    compilation-config: {pass_config: {eliminate_noops: true}, mode: 0}
-    env:
-      VLLM_ATTENTION_BACKEND: CPU_MLA
+    flags:
+      attention-backend: CPU_MLA
"""
    )
    assert of_release(migration.text, name) == []
    assert moved(migration.text, name).text == migration.text


def test_a_dynamo_graph_moves_to_the_newest() -> None:
    """Roles, connectors and keys are written as the new release has them; decode gets what prefill gets."""
    before = HOPPER.read_text().replace("${VERSION}", "0.8.0")
    migration = moved(before, to="dynamo-1.6.1")
    assert [f.message for f in migration.left] == []
    new = [line.strip(" \\") for line in difference(before, migration.text).splitlines() if line.startswith("+")]
    assert sum("vllm-runtime:1.6.1" in line for line in new) == 3
    words = [line.removeprefix("+").strip(" \\") for line in new]
    assert "--disaggregation-mode=prefill" in words
    assert "--disaggregation-mode decode" in words
    for role in ("kv_producer", "kv_consumer"):
        assert f"""--kv-transfer-config '{{"kv_connector":"NixlConnector","kv_role":"{role}"}}'""" in words
    assert '"fuse_norm_quant":true,"fuse_attn_quant":true,"eliminate_noops":true' in migration.text
    assert moved(migration.text, to="dynamo-1.6.1").text == migration.text


def test_a_variable_that_the_script_needs_is_left() -> None:
    text = "#!/bin/bash\nexport VLLM_USE_V1=1\necho $VLLM_USE_V1\npip install vllm==0.11.0\nvllm serve m\n"
    migration = moved(text, "file.sh")
    assert migration.text == text.replace("0.11.0", "0.33.0")
    assert [f.code for f in migration.left] == ["removed-env"]


LEFT = [
    # arguments, what is left
    ("--rope-theta 1000", "removed-flag"),
    ("$ARGS", "removed-flag"),
    ("--all2all-backend nonsense", "bad-value"),
]


@pytest.mark.parametrize(("arguments", "code"), LEFT)
def test_what_cannot_be_decided_is_left_with_words(arguments: str, code: str) -> None:
    text = f'#!/bin/bash\nARGS="--swap-space 4"\npip install vllm==0.11.0\nvllm serve m {arguments}\n'
    migration = moved(text, "file.sh")
    (left,) = migration.left
    assert left.code == code
    assert left.fix is not None
    assert left.fix.words
    assert migration.text == text.replace("0.11.0", "0.33.0")


def test_a_backend_that_is_gone_is_not_put_into_the_new_flag() -> None:
    text = "#!/bin/bash\nexport VLLM_ATTENTION_BACKEND=TRITON_ATTN_VLLM_V1\npip install vllm==0.11.0\nvllm serve m\n"
    (left,) = moved(text, "file.sh").left
    assert left.fix is not None
    assert "--attention-backend" in left.fix.words
    assert "TRITON_ATTN," in left.fix.words


IMAGES = [
    # image, image on 0.33.0, whether a person must look at it
    ("vllm/vllm-openai:v0.11.0", "vllm/vllm-openai:v0.33.0", False),
    ("vllm/vllm-openai:v0.11.0-cu129", "vllm/vllm-openai:v0.33.0-cu129", True),
    ("vllm/vllm-openai:v0.11.0rc2", "vllm/vllm-openai:v0.33.0", False),
    (f"vllm/vllm-openai:v0.11.0-aarch64@sha256:{'0' * 64}", "vllm/vllm-openai:v0.33.0-aarch64", True),
    ("registry:5000/vllm/vllm-openai:0.11.0", "registry:5000/vllm/vllm-openai:0.33.0", False),
    ("vllm/vllm-openai:nightly", "vllm/vllm-openai:nightly", True),
    ("vllm/vllm-openai:v0.33.0", "vllm/vllm-openai:v0.33.0", False),
]


@pytest.mark.parametrize(("image", "wanted", "is_left"), IMAGES)
def test_the_image_names_the_new_release(image: str, wanted: str, is_left: bool) -> None:
    text = f"{POD}      image: {image}\n      args: [--model, m]\n"
    migration = moved(text)
    assert migration.text == text.replace(image, wanted)
    assert [f.code for f in migration.left] == (["release"] if is_left else [])


def test_a_downgrade_does_what_it_can() -> None:
    text = FLOW.replace("v0.14.1", "v0.33.0")
    text = text.replace("--swap-space, '4', --disable-log-requests", "--cudagraph-capture-sizes, '4', --load-balance")
    migration = moved(text, to="vllm-0.11")
    assert "v0.11.0" in migration.text
    assert yaml.safe_load(migration.text)
    assert moved(migration.text, to="vllm-0.11").text == migration.text
    graph = (
        HOPPER.read_text()
        .replace("${VERSION}", "1.6.1")
        .replace("--is-prefill-worker", "--disaggregation-mode=prefill")
    )
    assert "--is-prefill-worker \\\n" in moved(graph, to="dynamo-0.8.0").text


REFUSED = [
    ("hello: world\n", NEWEST, "starts no engine"),
    ("a: [b\n", NEWEST, "mend it first"),
    (f"{POD}      image: vllm/vllm-openai:v0.11.0\n", "vllm-9.9", "the catalogue has"),
    (
        f"{POD}      image: vllm/vllm-openai:v0.11.0\n      args: [--model, m]\n",
        "dynamo-1.6.1",
        "give --to vllm-VERSION",
    ),
    (HOPPER.read_text(), NEWEST, "1.6.1 has 0."),
    ("", NEWEST, "nothing to migrate"),
]


@pytest.mark.parametrize(("text", "to", "words"), REFUSED)
def test_what_cannot_be_moved_is_refused(text: str, to: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        moved(text, to=to)
