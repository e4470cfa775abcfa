"""What differs between vLLM's releases of all that a stand-in speaks.

Source of every figure: the wheels of the catalogue's releases, 0.11.0 to 0.33.0: v1/metrics/loggers.py,
distributed/kv_events.py, the NIXL connector, the abort routes. "Since" is the first of those releases that has it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from types import MappingProxyType

from baton.base.errors import ConfigError

METRICS_SINCE: Mapping[str, int] = MappingProxyType(
    {
        "vllm:external_prefix_cache_queries": 12,
        "vllm:external_prefix_cache_hits": 12,
        "vllm:prompt_tokens_by_source": 16,
        "vllm:nixl_num_kv_expired_reqs": 15,
        "vllm:nixl_num_notifications_after_expiry": 32,
    }
)
"""minor release; every other family is in all of them"""
_REASONS_SINCE = {"stop": 11, "length": 11, "abort": 11, "error": 13, "repetition": 17}
_OFFER_SINCE = {
    "remote_num_tokens": 21, "remote_blocks_expiry_time": 26, "transfer_mode": 28, "dcp_size": 29, "pp_size": 29,
    "remote_prefill_cached_tokens": 31, "remote_registration_generation": 33,
}  # fmt: skip
_STORED_SINCE = {
    "lora_name": 14, "extra_keys": 17, "group_idx": 20, "kv_cache_spec_kind": 22,
    "kv_cache_spec_sliding_window": 22,
}  # fmt: skip


class Release:
    """A release, `0.minor.patch`.

    Raises   ConfigError for one that no stand-in speaks for
    """

    def __init__(self, version: str) -> None:
        parts = version.split(".")
        if len(parts) < 2 or parts[0] != "0" or not parts[1].isdigit():
            raise ConfigError(f"the version is {version!r}; a stand-in speaks for releases 0.11 to 0.33 of vLLM")
        self.minor = int(parts[1])

    @property
    def hands_over_by_id(self) -> bool:
        """Whether an offer names the request, so that decode's may be called otherwise."""
        return self.minor >= 13

    @property
    def groups_blocks(self) -> bool:
        """Whether an offer's blocks are listed by KV cache group."""
        return self.minor >= 18

    @property
    def offers_after_stop(self) -> bool:
        """Whether a prefill leg that ends by a stop, not only by its length, offers its KV."""
        return self.minor >= 21

    @property
    def has_leases(self) -> bool:
        """Whether heartbeats extend the time that KV is held."""
        return self.minor >= 22

    @property
    def hold_s(self) -> float:
        """How long KV is held without leases, seconds."""
        return 120.0 if self.minor == 11 else 480.0

    @property
    def has_abort_route(self) -> bool:
        """Whether requests can be aborted by id."""
        return self.minor >= 32

    @property
    def kv_events_are_maps(self) -> bool:
        """Whether KV events are maps, not arrays."""
        return self.minor >= 24

    @property
    def replays_topic(self) -> bool:
        """Whether a replayed batch has its topic before it."""
        return self.minor >= 26

    @property
    def finish_reasons(self) -> Sequence[str]:
        """The values of the label `finished_reason`."""
        return [reason for reason, since in _REASONS_SINCE.items() if self.minor >= since]

    def has_metric(self, name: str) -> bool:
        """Whether there is a metric of this name."""
        return self.minor >= METRICS_SINCE.get(name, 12 if name.startswith("vllm:nixl_") else 0)

    def has_in_offer(self, key: str) -> bool:
        """Whether an offer has this key."""
        return self.minor >= _OFFER_SINCE.get(key, 0)

    def has_in_stored(self, field: str) -> bool:
        """Whether an event of stored blocks has this field."""
        return self.minor >= _STORED_SINCE.get(field, 0)
