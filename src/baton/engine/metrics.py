"""What a vLLM server says of itself on /metrics, one rank at a time.

Counters only grow while the process lives; a difference of two snapshots is what happened between them.
Source: metric names of vLLM 0.32.0, read off running servers.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from typing import Self

from prometheus_client.parser import text_string_to_metric_families

from baton.base.errors import WorkerError


@dataclass(frozen=True, kw_only=True, slots=True)
class RankCounters:
    """Counters of one data-parallel rank; tokens unless the name says otherwise."""

    local_compute: int
    local_cache_hit: int
    external_kv_transfer: int
    kv_transferred_bytes: int
    kv_transfers: int
    failed_transfers: int
    failed_notifications: int
    expired_requests: int
    notifications_after_expiry: int

    def __sub__(self, earlier: Self) -> Self:
        return type(self)(**{f.name: getattr(self, f.name) - getattr(earlier, f.name) for f in fields(self)})

    def __add__(self, other: Self) -> Self:
        return type(self)(**{f.name: getattr(self, f.name) + getattr(other, f.name) for f in fields(self)})


_SOURCES = ("local_compute", "local_cache_hit", "external_kv_transfer")
_NIXL = {
    "kv_transferred_bytes": "vllm:nixl_bytes_transferred_sum",
    "kv_transfers": "vllm:nixl_bytes_transferred_count",
    "failed_transfers": "vllm:nixl_num_failed_transfers_total",
    "failed_notifications": "vllm:nixl_num_failed_notifications_total",
    "expired_requests": "vllm:nixl_num_kv_expired_reqs_total",
    "notifications_after_expiry": "vllm:nixl_num_notifications_after_expiry_total",
}


_BY_SOURCE = "vllm:prompt_tokens_by_source_total"
_UNFINISHED = ("vllm:num_requests_running", "vllm:num_requests_waiting")
_CACHE_CONFIG = "vllm:cache_config_info"
_NAMES = "|".join((_BY_SOURCE, *_NIXL.values(), *_UNFINISHED, _CACHE_CONFIG))
_READ = re.compile(rf"^(?:{_NAMES})[ {{].*\n?", re.MULTILINE)
"""The samples that are read, a small part of a page: parsing all of it takes milliseconds of the gateway's loop."""
_FIRST = re.compile(r"^[^#\n].*\n?", re.MULTILINE)
"""The first sample. It is always parsed: what is no Prometheus text at all must not pass for a page that lacks ours."""


class EngineMetrics:
    """One reading of one server's /metrics."""

    def __init__(self, text: str) -> None:
        first = _FIRST.search(text)
        try:
            list(text_string_to_metric_families(first[0] if first is not None else ""))
            self._samples = [
                (sample.name, sample.labels, sample.value)
                for family in text_string_to_metric_families("".join(_READ.findall(text)))
                for sample in family.samples
            ]
        except ValueError as error:
            raise WorkerError(f"/metrics is not Prometheus text: {error}") from error

    def counters(self, dp_rank: int) -> RankCounters:
        """Counters of one rank; NIXL's are 0 where the engine has no KV connector.

        Raises   WorkerError when the server does not report this rank's prompt tokens by source
        """
        by_source = {source: self._value(_BY_SOURCE, dp_rank, source=source) for source in _SOURCES}
        if None in by_source.values():
            raise WorkerError(
                f"/metrics has no {_BY_SOURCE} for engine {dp_rank}; "
                "vLLM 0.32 reports it: is this the right server, version and rank?"
            )
        nixl = {field: self._value(name, dp_rank) or 0 for field, name in _NIXL.items()}
        try:
            return RankCounters(**{name: int(value or 0) for name, value in {**by_source, **nixl}.items()})
        except (ValueError, OverflowError) as error:
            raise WorkerError(f"/metrics counts what is no number for engine {dp_rank}: {error}") from error

    def unfinished(self) -> int:
        """Requests running or waiting, over all ranks."""
        return int(sum(value for name, _, value in self._samples if name in _UNFINISHED))

    def cache_config(self) -> dict[str, str]:
        """Labels of vllm:cache_config_info of the first rank: block_size, cache_dtype, num_gpu_blocks and more."""
        return next((labels for name, labels, _ in self._samples if name == _CACHE_CONFIG), {})

    def max_kv_tokens(self) -> int | None:
        """Tokens of KV that one rank holds; None where the server does not say."""
        cache = self.cache_config()
        blocks, size = cache.get("num_gpu_blocks", ""), cache.get("block_size", "")
        return int(blocks) * int(size) if blocks.isdigit() and size.isdigit() else None

    def _value(self, name: str, dp_rank: int, **labels: str) -> float | None:
        wanted = {"engine": str(dp_rank), **labels}
        found = [v for n, have, v in self._samples if n == name and wanted.items() <= have.items()]
        return sum(found) if found else None
