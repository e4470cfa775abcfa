"""What a deployment on one machine can't have."""

from __future__ import annotations

from pathlib import Path

import pytest

from baton.base.errors import ConfigError
from baton.engine.one_machine import gateway_arguments, refuse_shared_ports
from baton.recipe.deployment import Deployment, resolve
from baton.recipe.document import parse
from baton.recipe.recipe import Recipe


@pytest.mark.parametrize(
    ("pool", "is_refused"),
    [
        ("{dp_size: 2, load_balancing: external}", True),
        ("{dp_size: 1, load_balancing: external}", False),
        ("{dp_size: 2, load_balancing: hybrid}", False),
        ("{dp_size: 2}", False),
    ],
)
def test_external_load_balancing_needs_a_machine_of_its_own(pool: str, is_refused: bool) -> None:
    """Its ranks meet on a port that every replica of the machine would take."""
    text = (
        "{baton: 1, name: t, model: {name: m, path: /m, dtype: float32, max_model_len: 64}, engine: {version: 0.32.0}, "
        "hardware: {accelerator: cpu}, kv_transfer: {buffer_device: cpu}, "
        f"roles: {{prefill: {{}}, decode: {pool}}}}}"
    )
    deployment = resolve(parse(text, Recipe, source="t.yaml"), Path("/"))
    if not is_refused:
        refuse_shared_ports(deployment)
        return
    with pytest.raises(ConfigError, match=r"roles\.decode\.load_balancing: external with dp_size 2 .*leave it out"):
        refuse_shared_ports(deployment)


def of_gateway(gateway: str, prefill: str = "{}") -> Deployment:
    text = (
        "{baton: 1, name: t, model: {name: m, path: /m, dtype: float32, max_model_len: 64}, engine: {version: 0.32.0}, "
        "hardware: {accelerator: cpu}, kv_transfer: {buffer_device: cpu}, "
        f"roles: {{prefill: {prefill}, decode: {{}}}}, gateway: {gateway}}}"
    )
    return resolve(parse(text, Recipe, source="t.yaml"), Path("/r"))


def test_a_gateway_is_told_only_what_it_does_not_do_by_itself() -> None:
    said = gateway_arguments(of_gateway("{ttft_deadline_s: 30, processes: 1, max_queued: 1024}"), "w.yaml")
    assert said == gateway_arguments(of_gateway("{}"), "w.yaml")
    assert [word for word in said if word.startswith("--")] == [
        "--workers", "--host", "--port", "--request-timeout-s", "--max-body-bytes",
    ]  # fmt: skip


def test_a_gateway_is_told_what_a_recipe_chooses() -> None:
    gateway = "{api_keys: {secret: s, file: keys.yaml}, ttft_deadline_s: 0, max_queued: 9, hold_s: 2, processes: 3}"
    said = gateway_arguments(of_gateway(gateway), "w.yaml")
    assert said[-10:] == (
        "--api-keys", "/r/keys.yaml", "--ttft-deadline-s", "0.0", "--max-queued", "9", "--hold-s", "2.0",
        "--processes", "3",
    )  # fmt: skip


def test_keys_that_are_only_in_a_cluster_are_refused_with_what_to_do() -> None:
    with pytest.raises(ConfigError, match=r"got secret s, .*set gateway\.api_keys\.file"):
        gateway_arguments(of_gateway("{api_keys: {secret: s}}"), "w.yaml")


def test_exact_prefixes_need_prefill_engines_that_publish_kv_events() -> None:
    with pytest.raises(ConfigError, match=r"exact_prefixes: got true, .*kv-events-config"):
        gateway_arguments(of_gateway("{exact_prefixes: true}"), "w.yaml")
    events = "{flags: {kv-events-config: {enable_kv_cache_events: true, publisher: zmq, endpoint: 'tcp://*:5557'}}}"
    assert gateway_arguments(of_gateway("{exact_prefixes: true}", events), "w.yaml")[-1] == "--exact-prefixes"
