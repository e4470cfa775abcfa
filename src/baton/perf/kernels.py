"""How long one GPU takes for one kind of kernel: bytes over bandwidth, operations over peak, and a fixed cost.

Neither limit hides the other wholly: the two are joined by a norm of order 1.5, which meets DeepGEMM's published table
(24 shapes, memory-bound to compute-bound) within 12 % median; a maximum would be 30 % short where they are equal.
"""

from __future__ import annotations

from dataclasses import dataclass

from baton.catalogue.factors import Factors
from baton.catalogue.figures import Figure
from baton.catalogue.hardware import Accelerator
from baton.perf.cost import Cost

_ORDER, _ATTENTION_ORDER = 1.5, 4.0
_PEAK = {"bfloat16": "bf16", "fp8": "fp8", "nvfp4": "fp4"}
WEIGHT_BYTES = {"bfloat16": 2.0, "fp8": 1 + 4 / 128**2, "nvfp4": 0.5 + 1 / 16}
INPUT_BYTES = {"bfloat16": 2.0, "fp8": 1 + 4 / 128, "nvfp4": 0.5 + 1 / 16}
"""bytes of one value with its share of the scales: of weights, and of what comes in (FP8: one float32 for 128)"""
_TILE_ROWS = 64
"""rows of a grouped product are padded to this, half of it on average. Source: DeepGEMM README, masked layout"""


@dataclass(frozen=True, slots=True)
class Kernels:
    """One accelerator with its factors; every method returns the Cost of `count` kernels of one kind."""

    gpu: Accelerator
    factors: Factors

    def peak_per_s(self, dtype: str) -> float:
        """Return the stated dense operations a second; a format the GPU lacks is computed in bfloat16."""
        peaks = self.gpu.dense_flops_per_s
        return peaks.get(_PEAK[dtype], peaks["bf16"]).value

    def matrix(self, name: str, *, rows: float, into: int, out: int, dtype: str, count: int = 1) -> Cost:
        """`rows` vectors of `into` values times a weight of into x out."""
        num_bytes = into * out * WEIGHT_BYTES[dtype] + rows * (into * INPUT_BYTES[dtype] + 2 * out)
        share = self._share(self.factors.gemm, dtype)
        return self._cost(
            name,
            2 * rows * into * out,
            num_bytes,
            self.peak_per_s(dtype) * share,
            count,
            f"{rows:.4g} x {into} x {out} in {dtype}",
        )

    def grouped(
        self, name: str, *, rows: float, experts: float, into: int, out: int, dtype: str, count: int = 1
    ) -> Cost:
        """`rows` vectors, each with one of `experts` weights; experts that nobody chose are not read."""
        chosen = experts * (1 - (1 - 1 / experts) ** rows) if experts > 1 else experts
        padded = rows + chosen * _TILE_ROWS / 2
        num_bytes = chosen * into * out * WEIGHT_BYTES[dtype] + rows * (into * INPUT_BYTES[dtype] + 2 * out)
        share = self._share(self.factors.grouped_gemm, dtype)
        return self._cost(
            name,
            2 * padded * into * out,
            num_bytes,
            self.peak_per_s(dtype) * share,
            count,
            f"{rows:.4g} rows over {chosen:.4g} experts x {into} x {out} in {dtype}",
        )

    def attention(
        self, name: str, *, operations: float, num_bytes: float, is_mla: bool, count: int, reason: str
    ) -> Cost:
        """The attention core, in bfloat16 arithmetic whatever the cache's format; is_mla: absorbed, one latent."""
        factor = self.factors.mla if is_mla else self.factors.prefill_attention
        per_s = self.peak_per_s("bfloat16") * factor.value
        return self._cost(name, operations, num_bytes, per_s, count, reason, order=_ATTENTION_ORDER)

    def moved(self, name: str, *, num_bytes: float, kernels: float, count: int, reason: str) -> Cost:
        """`kernels` small ones that only read and write."""
        time_s = num_bytes / self.hbm_bytes_per_s + kernels * self.factors.kernel_s.value
        is_fixed = kernels * self.factors.kernel_s.value > time_s / 2
        return Cost(name, count * time_s, "latency" if is_fixed else "bandwidth", f"{count} x ({reason})")

    @property
    def hbm_bytes_per_s(self) -> float:
        """Memory bandwidth as large transfers reach it."""
        return self.gpu.hbm_bytes_per_s.value * self.factors.hbm.value

    def _share(self, shares: dict[str, Figure], dtype: str) -> float:
        name = _PEAK[dtype]
        found = shares.get(name if name in self.gpu.dense_flops_per_s else "bf16")
        return found.value if found is not None else shares["bf16"].value

    def _cost(
        self,
        name: str,
        operations: float,
        num_bytes: float,
        per_s: float,
        count: int,
        reason: str,
        order: float = _ORDER,
    ) -> Cost:
        compute_s, memory_s, fixed_s = operations / per_s, num_bytes / self.hbm_bytes_per_s, self.factors.kernel_s.value
        joined_s = (compute_s**order + memory_s**order) ** (1 / order)
        limit = max((compute_s, "arithmetic"), (memory_s, "bandwidth"), (fixed_s, "latency"))[1]
        why = f"{reason}: {operations / 1e9:.3g} GFLOP, {num_bytes / 1e6:.3g} MB"
        return Cost(name, count * (joined_s + fixed_s), limit, f"{count} x ({why})" if count > 1 else why)
