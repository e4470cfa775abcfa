"""What a stand-in pretends to be, and how long its steps take."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from baton.base.errors import ConfigError
from baton.engine.stand_in.release import Release

KV_BYTES_PER_TOKEN = 61 * 576 * 2
"""DeepSeek-R1 in bfloat16: layers, values a token (kv_lora_rank + qk_rope_head_dim), bytes a value"""


@dataclass(frozen=True, kw_only=True, slots=True)
class StepTime:
    """Seconds of one step of a rank: a sum over what the step computes.

    base_s                      of any step
    per_prefill_token_s         for each prompt token computed
    per_prefill_context_token_s for each prompt token and each token before it: attention's quadratic part
    per_running_s               for each request that decodes
    per_context_token_s         for each token of context of a request that decodes

    The defaults resemble DeepSeek-R1 on one H200 of a wide expert-parallel group: about 7,000 prompt tokens/s, and
    115 ms a step with 256 requests of 3,000 tokens, which is 2,200 output tokens/s.
    Source: vLLM blog, 17 December 2025 (large-scale serving on H200).
    """

    base_s: float = 0.02
    per_prefill_token_s: float = 1.4e-4
    per_prefill_context_token_s: float = 0.0
    per_running_s: float = 2.5e-4
    per_context_token_s: float = 4e-8

    def __post_init__(self) -> None:
        for name in self.__slots__:
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be 0 or more, in seconds")

    @classmethod
    def zero(cls) -> StepTime:
        """Every step as fast as the loop turns."""
        return cls(base_s=0, per_prefill_token_s=0, per_running_s=0, per_context_token_s=0)

    def step_s(self, prefill_tokens: int, prefill_context: int, running: int, context_tokens: int) -> float:
        """Seconds; `prefill_context` is the sum over chunks of tokens times context before them."""
        return (
            self.base_s
            + self.per_prefill_token_s * prefill_tokens
            + self.per_prefill_context_token_s * prefill_context
            + self.per_running_s * running
            + self.per_context_token_s * context_tokens
        )


@dataclass(frozen=True, kw_only=True, slots=True)
class KvEventsPorts:
    """Where KV events are published: rank i on `port` + i, replayed on `replay_port` + i; 0 takes free ports."""

    port: int = 0
    replay_port: int | None = 0
    """None: no replay"""
    topic: str = ""
    buffer_steps: int = 10_000
    """batches kept for replay"""
    hwm: int = 100_000
    """batches that wait for a slow subscriber before they are dropped"""


@dataclass(frozen=True, kw_only=True, slots=True)
class StandInConfig:
    """One server's settings, named as vLLM names them where vLLM has them."""

    model: str = "tiny-r1"
    aliases: tuple[str, ...] = ()
    root: str = "/models/tiny-r1"
    version: str = "0.32.0"
    """the vLLM release whose metric names and KV event encoding are spoken"""
    dp_size: int = 1
    """ranks of this server"""
    dp_rank_start: int = 0
    """number of the first of them"""
    max_model_len: int = 32768
    max_num_seqs: int = 256
    max_num_batched_tokens: int = 8192
    block_size: int = 16
    num_gpu_blocks: int = 8192
    """KV blocks of a rank; block 0 is nobody's"""
    enable_prefix_caching: bool = True
    enable_prompt_tokens_details: bool = True
    enable_scale_out: bool = True
    """whether /inference/v1/abort_requests may be used, in releases that have it"""
    kv_connector: bool = True
    kv_load_failure_policy: Literal["fail", "recompute"] = "fail"
    kv_lease_duration_s: float = 30.0
    """heartbeats come every sixth of it and extend a lease to two thirds"""
    kv_bytes_per_token: int = KV_BYTES_PER_TOKEN
    transfer_bytes_per_s: float = 25e9
    transfer_latency_s: float = 0.005
    side_channel_host: str = "127.0.0.1"
    side_channel_port: int = 0
    """rank i listens on + i; 0 takes free ports"""
    kv_events: KvEventsPorts | None = None
    cache_dtype: str = "auto"
    weights: str = "right"
    """identity of the weights: others make other KV and other tokens"""
    answer_ends_every: int = 256
    """an answer ends by itself where prompt and answer are a multiple of so many tokens; 0: never"""
    reasoning_tokens: int = 0
    """so many tokens of a chat's answer are reasoning"""
    tool_parser: bool = False
    step_time: StepTime = field(default_factory=StepTime)
    speed: float = 1.0
    """steps and transfers take their seconds divided by this"""
    dev_mode: bool = False
    """whether there is /reset_prefix_cache"""

    def __post_init__(self) -> None:
        for name in ("dp_size", "max_model_len", "max_num_seqs", "max_num_batched_tokens", "block_size", "speed"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name} is {getattr(self, name)}; it must be above 0")
        if self.num_gpu_blocks < 2:
            raise ConfigError(f"num_gpu_blocks is {self.num_gpu_blocks}; at least 2 are needed, as block 0 is nobody's")
        if self.kv_connector and not self.release.hands_over_by_id:
            raise ConfigError(f"version is {self.version}; a stand-in hands KV over as releases from 0.13 on do")

    @property
    def release(self) -> Release:
        """The release that is spoken for."""
        return Release(self.version)

    @property
    def ranks(self) -> range:
        """Numbers of the ranks."""
        return range(self.dp_rank_start, self.dp_rank_start + self.dp_size)
