"""DeepGEMM asked for, with weights it cannot multiply.

DeepGEMM's kernels multiply FP8 weights with a scale for every block of 128 x 128. An NVFP4 checkpoint has none: its
experts go through FlashInfer, CUTLASS or Marlin, and VLLM_USE_DEEP_GEMM is never asked. It is on by default anyway;
where a manifest for FP4 weights sets it, it was copied from one for FP8, and what else came along is worth a look.

Remove the variable.
"""

from __future__ import annotations

from collections.abc import Iterator

from baton.check.bundle import Bundle
from baton.check.facts.variables import settings
from baton.check.finding import Finding, Fix, Harm

HARM = Harm.WASTED
SEE = ()
FIRES = """\
#!/bin/bash
docker run -e VLLM_USE_DEEP_GEMM=1 vllm/vllm-openai:v0.32.0 --model nvidia/DeepSeek-R1-FP4 --max-model-len 4096
"""
SILENT = """\
#!/bin/bash
docker run -e VLLM_USE_DEEP_GEMM=1 vllm/vllm-openai:v0.32.0 --model deepseek-ai/DeepSeek-R1 --max-model-len 4096
"""
_NAME = "VLLM_USE_DEEP_GEMM"


def check(bundle: Bundle) -> Iterator[Finding]:
    """Yield a finding for every engine with FP4 weights that asks for FP8 kernels."""
    for setting in settings(bundle, _NAME):
        launch, value = setting.launch, setting.word.value
        is_on = setting.word.is_known and value not in ("", "0")
        if setting.name == _NAME and is_on and launch.weight_dtype == "nvfp4" and launch.reads(_NAME):
            yield Finding(
                span=setting.span,
                message=f"{_NAME}={value} does nothing for NVFP4 weights",
                evidence=("DeepGEMM multiplies block-scaled FP8; vLLM's NVFP4 code has no path to it",),
                fix=Fix("remove it", setting.removal()),
            )
