"""FP4 weights on a GPU that cannot multiply them.

Hopper has no FP4 arithmetic. vLLM loads an NVFP4 checkpoint there all the same and unpacks the weights at every step
(Marlin): memory is saved, speed is lost, and nothing stops. With VLLM_USE_FLASHINFER_MOE_FP4=1, vLLM 0.17 to 0.22
insist on FlashInfer's FP4 kernels, find none, and exit.

Serve the FP8 checkpoint on Hopper, and FP4 on Blackwell.
"""

from __future__ import annotations

from collections.abc import Iterator

from baton.check.bundle import Bundle
from baton.check.facts import machine
from baton.check.finding import Finding, Fix, Harm

HARM = Harm.WASTED
SEE = ()
FIRES = """\
apiVersion: v1
kind: Pod
metadata: {name: chat}
spec:
  nodeSelector: {nvidia.com/gpu.product: NVIDIA-H200}
  containers:
    - name: engine
      image: vllm/vllm-openai:v0.32.0
      args: [--model, nvidia/DeepSeek-R1-FP4, --tensor-parallel-size, "8", --max-model-len, "4096"]
      resources: {limits: {nvidia.com/gpu: 8}}
      volumeMounts: [{name: shm, mountPath: /dev/shm}]
  volumes: [{name: shm, emptyDir: {medium: Memory, sizeLimit: 64Gi}}]
"""
SILENT = FIRES.replace("NVIDIA-H200", "NVIDIA-B200")
_FLASHINFER = "VLLM_USE_FLASHINFER_MOE_FP4"


def check(bundle: Bundle) -> Iterator[Finding]:
    """Yield a finding for every engine with FP4 weights on Hopper."""
    for launch in bundle.engines:
        if launch.weight_dtype != "nvfp4" or machine.generation(bundle, launch) != "hopper":
            continue
        gpu, model = machine.candidates(bundle, launch)[0], launch.model
        # fused_moe/oracle/nvfp4.py of 0.17.1 to 0.22.1
        is_exit = launch.variable(_FLASHINFER) == "1" and launch.is_between("0.17.0", "0.23.0")
        if is_exit and launch.known_model is not None:
            yield Finding(
                span=launch.env[_FLASHINFER].span,
                message=f"{_FLASHINFER}=1 on {gpu}: no FlashInfer kernel multiplies NVFP4 there, and the engine exits",
                evidence=(f"{launch.version.name} falls back to nothing if the variable is set",),
                fix=Fix("remove it, or serve the FP8 checkpoint"),
                harm=Harm.NOT_STARTING,
            )
            continue
        yield Finding(
            span=model.span if model is not None else launch.start,
            message=f"NVFP4 weights on {gpu}, which has no FP4 arithmetic: they are unpacked at every step",
            evidence=("vLLM takes Marlin kernels, which multiply in bfloat16",),
            fix=Fix("serve the FP8 checkpoint on Hopper"),
        )
