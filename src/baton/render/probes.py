"""How long engines may take to start and to answer before Kubernetes acts, each as a sum with its reasons."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any

from baton.catalogue.model import Model, load_model, models
from baton.perf import memory
from baton.recipe.deployment import Deployment

START_S = 142
"""processes, CUDA, graphs, server: measured on one H200 with dummy weights, vLLM 0.22.1"""
COMPILE_S = 600
"""kernels a large model compiles and tunes before it serves (DeepGEMM, FlashInfer); assumed, not measured"""
SAFETY = 2.0
"""of the whole sum: a probe that gives up starts everything from the beginning"""

_PERIOD_S = 10
_DAY_S = 24 * 3600
_SI = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "T": 10**12, "P": 10**15}
_BINARY = {f"{letter.upper()}i": 1 << 10 * (at + 1) for at, letter in enumerate("kMGTP")}


def startup_s(deployment: Deployment) -> int:
    """Return how long an engine may take from its first process to its first answer, seconds.

    SAFETY x (checkpoint read once by each node + START_S + COMPILE_S), rounded up to a whole period, a day at most. The
    ranks of a node share what they read: it stays in the page cache.
    """
    reading_s = checkpoint_bytes(deployment) / deployment.cluster.model_cache.read_bytes_per_s
    wanted_s = min(SAFETY * (reading_s + START_S + COMPILE_S), _DAY_S)
    return math.ceil(wanted_s / _PERIOD_S) * _PERIOD_S


def checkpoint_bytes(deployment: Deployment) -> float:
    """Return what a node reads at most: a model of the catalogue by its shape; of any other, the whole model cache."""
    model = _known_model(deployment)
    if model is None:
        return quantity(deployment.cluster.model_cache.size)
    dtype = deployment.model.quantization if deployment.model.quantization != "none" else deployment.model.dtype
    dtype = "bfloat16" if dtype == "float16" else dtype
    return memory.total_bytes(memory.weights(model, dtype=dtype, tp_size=1, dp_size=1, ep_size=1))


def of_engine(deployment: Deployment) -> Mapping[str, Any]:
    """Return the probes of an engine's container, which ask its first HTTP port.

    Liveness is slow to act: an engine that compiles a kernel under load has been seen to answer nothing for 30 to 70 s
    (ai-dynamo/dynamo#14735), and a restart takes its whole group down for `startup_s`.
    """
    ask = {"httpGet": {"path": "/health", "port": "http"}}
    return {
        "startupProbe": _probe(ask, period_s=_PERIOD_S, timeout_s=5, failures=startup_s(deployment) // _PERIOD_S),
        "livenessProbe": _probe(ask, period_s=30, timeout_s=20, failures=10),
        "readinessProbe": _probe(ask, period_s=10, timeout_s=10, failures=6),
    }


def of_gateway() -> Mapping[str, Any]:
    """Return the probes of a gateway: alive at once, ready as soon as one pair of ranks is verified."""
    alive, ready = ({"httpGet": {"path": path, "port": "http"}} for path in ("/health", "/ready"))
    return {
        "startupProbe": _probe(alive, period_s=1, timeout_s=1, failures=60),
        "livenessProbe": _probe(alive, period_s=10, timeout_s=5, failures=6),
        "readinessProbe": _probe(ready, period_s=5, timeout_s=3, failures=2),
    }


def quantity(text: str) -> float:
    """Return a Kubernetes quantity of bytes (130, 850Gi) as a number."""
    found = re.fullmatch(r"(\d+)(\D*)", text)
    assert found is not None, "the recipe's pattern"
    return int(found[1]) * float({**_SI, **_BINARY}[found[2]])


def _probe(ask: Mapping[str, Any], *, period_s: int, timeout_s: int, failures: int) -> Mapping[str, Any]:
    return {**ask, "periodSeconds": period_s, "timeoutSeconds": timeout_s, "failureThreshold": failures}


def _known_model(deployment: Deployment) -> Model | None:
    """The catalogue's model, by the names a recipe gives it, the longest first.

    A name that only begins like one (a distilled model) finds the larger one: its engines are waited for too long.
    """
    model = deployment.model
    given = " ".join((model.name, str(model.path or ""), model.repo or "")).lower()
    name = next((name for name in sorted(models(), key=len, reverse=True) if name in given), None)
    return load_model(name) if name is not None else None
