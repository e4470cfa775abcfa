"""CPU time of `baton check` on 100 manifests, beside yamllint on the same files: `python benchmarks/check.py`.

The manifests are DynamoGraphDeployments of some 270 lines: four workers that hand KV over in pairs, one flag or value a
line, each with its own names and sizes, and with faults (a flag and a variable that are gone, memory that may not be
locked). Every program is started anew for each run, as a person or a pre-commit hook does, so its imports count. Needs
`pip install yamllint` for the peer.
"""

from __future__ import annotations

import importlib.metadata
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

NUM_FILES = 100
NUM_RUNS = 3
WORKERS = 4
"""services of a file, of 69 lines each"""


def main() -> None:
    """Write the files, run both, print conditions, figures and the ratio."""
    with tempfile.TemporaryDirectory() as folder:
        lines = [write(Path(folder) / f"graph-{n}.yaml", n) for n in range(NUM_FILES)]
        programs = {
            "baton check": [sys.executable, "-m", "baton", "check", "--quiet", folder],
            "yamllint": [sys.executable, "-m", "yamllint", "-d", "relaxed", folder],
        }
        version, load = importlib.metadata.version("yamllint"), os.getloadavg()[0]
        print(
            f"{NUM_FILES} manifests of {sum(lines) / NUM_FILES:.0f} lines; median of {NUM_RUNS} runs, whole processes"
        )
        print(f"{platform.machine()}, {os.cpu_count()} cores, load {load:.1f}; yamllint {version}")
        found = {name: statistics.median(cpu_s(command) for _ in range(NUM_RUNS)) for name, command in programs.items()}
        for name, seconds in found.items():
            print(f"{name:12} {seconds:6.2f} s of CPU, {1000 * seconds / NUM_FILES:5.1f} ms a manifest")
        print(f"ratio        {found['baton check'] / found['yamllint']:6.2f}")


def write(path: Path, number: int) -> int:
    """Write one manifest; return its number of lines."""
    text = HEAD.format(number=number)
    for worker in range(WORKERS):
        role = ("prefill", "decode")[worker % 2]
        text += WORKER.format(role=role, worker=worker, seqs=128 + number)
    path.write_text(text, encoding="utf-8")
    return text.count("\n")


def cpu_s(command: list[str]) -> float:
    """Return user and system time of a command, which may find faults (exit code 1) but must not break."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(command, capture_output=True, check=False)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode not in (0, 1) or b"internal-error" in done.stdout:
        sys.exit(f"{' '.join(command[:4])} failed with {done.returncode}: {done.stderr.decode()}")
    return after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


HEAD = """\
apiVersion: nvidia.com/v1alpha1
kind: DynamoGraphDeployment
metadata:
  name: graph-{number}
spec:
  backendFramework: vllm
  pvcs: [{{name: model-cache, create: false}}]
  services:
"""
WORKER = """\
    {role}-{worker}:
      componentType: worker
      subComponentType: {role}
      replicas: 1
      multinode:
        nodeCount: 2
      resources:
        limits:
          gpu: "8"
          custom:
            rdma/ib: "8"
      sharedMemory:
        size: 80Gi
      envs:
        - name: VLLM_MOE_DP_CHUNK_SIZE
          value: "384"
        - name: VLLM_USE_DEEP_GEMM
          value: "1"
        - name: VLLM_SKIP_P2P_CHECK
          value: "1"
        - name: GLOO_SOCKET_IFNAME
          value: eth0
        - name: NCCL_SOCKET_IFNAME
          value: eth0
      volumeMounts:
        - name: model-cache
          mountPoint: /model-cache
      extraPodSpec:
        mainContainer:
          image: nvcr.io/nvidia/ai-dynamo/vllm-runtime:1.2.1
          workingDir: /workspace
          startupProbe:
            httpGet:
              path: /health
              port: 9090
            periodSeconds: 10
            timeoutSeconds: 10
            failureThreshold: 600
          command:
            - python3
            - -m
            - dynamo.vllm
          args:
            - --model
            - /model-cache/deepseek-r1
            - --served-model-name
            - deepseek-ai/DeepSeek-R1
            - --disaggregation-mode
            - {role}
            - --data-parallel-hybrid-lb
            - --data-parallel-size
            - "16"
            - --enable-expert-parallel
            - --max-model-len
            - "16384"
            - --max-num-seqs
            - "{seqs}"
            - --swap-space
            - "16"
            - --all2all-backend
            - deepep_high_throughput
            - --enable-eplb
            - --eplb-config
            - '{{"window_size":"1000","num_redundant_experts":"32"}}'
            - --kv-transfer-config
            - '{{"kv_connector":"NixlConnector","kv_role":"kv_both"}}'
"""

if __name__ == "__main__":
    main()
