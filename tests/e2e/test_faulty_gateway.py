"""Gateways that are wrong in ways no client sees, in front of real engines: the proof names each."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest
from e2e.running import Deployment
from fakes.faulty_gateway import ExchangesBlocks, ForgetsToPull, SwapsPools

from baton.gateway.app import serve
from baton.gateway.handoff import HandoffRunner
from baton.prove.run import prove_deployment
from baton.recipe.workers import load_workers

pytestmark = pytest.mark.vllm


@pytest.mark.parametrize(
    ("fault", "named"),
    [
        (SwapsPools, "prompt tokens prefill computed: 0 of 1,"),
        (ForgetsToPull, "prompt tokens decode received: 0 of 1,"),
        (ExchangesBlocks, "answers equal to decode alone"),
    ],
)
async def test_a_faulty_gateway_is_not_proven(deployment: Deployment, fault: type[HandoffRunner], named: str) -> None:
    workers = load_workers(Path(deployment.status()["workers_file"]))
    async with serve(
        workers, "127.0.0.1", 0, random=Random(1), started_at_s=0, request_timeout_s=60, max_body_bytes=1 << 20
    ) as (gateway, url):
        gateway.runner = fault(gateway.pool, gateway.runner.router, gateway.metrics)
        verdict = await prove_deployment(workers, url, random=Random(2))
    assert not verdict.proven
    assert named in verdict.reason
