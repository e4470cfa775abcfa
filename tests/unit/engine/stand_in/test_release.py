"""The table of releases against what their wheels publish, which was read once and is written down here."""

from __future__ import annotations

import pytest

from baton.base.errors import ConfigError
from baton.catalogue.engine import version_key, versions
from baton.engine.stand_in.release import METRICS_SINCE, Release

VERSIONS = versions("vllm")
METRICS = {
    "vllm:num_requests_running": "0.11.0",
    "vllm:kv_cache_usage_perc": "0.11.0",
    "vllm:prefix_cache_hits": "0.11.0",
    "vllm:prompt_tokens": "0.11.0",
    "vllm:inter_token_latency_seconds": "0.11.0",
    "vllm:request_success": "0.11.0",
    "vllm:external_prefix_cache_queries": "0.12.0",
    "vllm:external_prefix_cache_hits": "0.12.0",
    "vllm:prompt_tokens_by_source": "0.16.0",
    "vllm:nixl_bytes_transferred": "0.12.0",
    "vllm:nixl_xfer_time_seconds": "0.12.0",
    "vllm:nixl_num_failed_transfers": "0.12.0",
    "vllm:nixl_num_failed_notifications": "0.12.0",
    "vllm:nixl_num_kv_expired_reqs": "0.15.1",
    "vllm:nixl_num_notifications_after_expiry": "0.32.0",
}
"""family: the first release of the catalogue whose wheel publishes it; none of them went again"""
OFFER = {
    "do_remote_prefill": "0.11.0",
    "remote_block_ids": "0.11.0",
    "tp_size": "0.11.0",
    "remote_num_tokens": "0.21.0",
    "remote_blocks_expiry_time": "0.26.0",
    "transfer_mode": "0.28.0",
    "dcp_size": "0.29.0",
    "pp_size": "0.29.0",
    "remote_registration_generation": "0.33.0",
}
STORED = {
    "lora_name": "0.14.1",
    "extra_keys": "0.17.1",
    "group_idx": "0.20.2",
    "kv_cache_spec_kind": "0.22.1",
    "kv_cache_spec_sliding_window": "0.22.1",
}
RULES = {
    "hands_over_by_id": "0.13.0",
    "groups_blocks": "0.18.1",
    "offers_after_stop": "0.21.0",
    "has_leases": "0.22.1",
    "kv_events_are_maps": "0.24.0",
    "has_abort_route": "0.32.0",
}


def since(first: str, version: str) -> bool:
    return version_key(version) >= version_key(first)


@pytest.mark.parametrize("version", VERSIONS)
def test_a_release_has_the_metrics_that_its_wheel_has(version: str) -> None:
    assert METRICS.keys() >= METRICS_SINCE.keys()
    assert {name: Release(version).has_metric(name) for name in METRICS} == {
        name: since(first, version) for name, first in METRICS.items()
    }


@pytest.mark.parametrize("version", VERSIONS)
def test_an_offer_has_the_keys_that_its_release_gives_it(version: str) -> None:
    assert {key: Release(version).has_in_offer(key) for key in OFFER} == {
        key: since(first, version) for key, first in OFFER.items()
    }


@pytest.mark.parametrize("version", VERSIONS)
def test_an_event_of_stored_blocks_has_the_fields_of_its_release(version: str) -> None:
    assert {name: Release(version).has_in_stored(name) for name in STORED} == {
        name: since(first, version) for name, first in STORED.items()
    }


@pytest.mark.parametrize("version", VERSIONS)
def test_what_a_release_does_begins_where_its_wheel_says(version: str) -> None:
    assert {rule: getattr(Release(version), rule) for rule in RULES} == {
        rule: since(first, version) for rule, first in RULES.items()
    }


@pytest.mark.parametrize(
    ("version", "reasons"),
    [
        ("0.11.0", ["stop", "length", "abort"]),
        ("0.12.0", ["stop", "length", "abort"]),
        ("0.13.0", ["stop", "length", "abort", "error"]),
        ("0.16.0", ["stop", "length", "abort", "error"]),
        ("0.17.1", ["stop", "length", "abort", "error", "repetition"]),
        ("0.33.0", ["stop", "length", "abort", "error", "repetition"]),
    ],
)
def test_a_generation_ends_for_the_reasons_of_its_release(version: str, reasons: list[str]) -> None:
    assert list(Release(version).finish_reasons) == reasons


@pytest.mark.parametrize(("version", "hold_s"), [("0.11.0", 120), ("0.12.0", 480), ("0.21.0", 480)])
def test_before_leases_kv_is_held_for_a_fixed_time(version: str, hold_s: float) -> None:
    assert (Release(version).has_leases, Release(version).hold_s) == (False, hold_s)


@pytest.mark.parametrize("version", ["", "1.0.0", "0", "0.x.1", "main", "v0.32.0"])
def test_what_is_no_release_is_refused_with_those_there_are(version: str) -> None:
    with pytest.raises(ConfigError, match=r"a stand-in speaks for releases 0\.11 to 0\.33 of vLLM"):
        Release(version)
