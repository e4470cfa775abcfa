"""Whether an engine is more than vLLM: an add-on of another maker brings flags, variables and KV connectors of its own.

Known by what only such an add-on reads or is given. An engine without these marks may have one all the same.
"""

from __future__ import annotations

from baton.check.commands.launch import Launch

_FLAGS = ("--omni", "--additional-config")
_QUANTIZATIONS = ("ascend", "inc")
_VARIABLES = (
    "VLLM_ASCEND_",
    "ASCEND_",
    "HCCL_",
    "PT_HPU_",
    "HABANA_",
    "NEURON_",
    "VLLM_NEURON_",
    "PJRT_",
    "VLLM_OMNI_",
)
_DEVICES = ("huawei.com/", "habana.ai/", "aws.amazon.com/neuron", "google.com/tpu")


def has_plugin(launch: Launch) -> bool:
    """Say whether something beside vLLM takes part in what is written here."""
    if any(option.written.value in _FLAGS for option in launch.options):
        return True
    if launch.value("--quantization") in _QUANTIZATIONS or any(name.startswith(_VARIABLES) for name in launch.env):
        return True
    container = launch.container
    return container is not None and any(
        name.startswith(_DEVICES) for given in (container.limits, container.requests) for name in given
    )
