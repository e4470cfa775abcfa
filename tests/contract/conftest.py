"""Every test of the contract runs on real vLLM and on baton's stand-in: where they differ, the stand-in is wrong."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from contract import starting
from contract.engines import CachingEngine, Engine, Pair
from e2e.running import eventually

BOTH = [pytest.param("vllm", marks=pytest.mark.vllm), "stand_in"]
NO_STAND_IN = "baton.engine.stand_in is not there: only real vLLM is held to the contract"


@pytest.fixture(scope="session")
def vllm_pair(workers: dict[str, dict[str, Any]]) -> Iterator[Pair]:
    """The engines of `make up`, without the gateway before them."""
    with (
        httpx.Client(base_url=workers["prefill-0"]["url"], timeout=60) as prefill,
        httpx.Client(base_url=workers["decode-0"]["url"], timeout=60) as decode,
    ):
        yield Pair(Engine(prefill, "tiny-r1"), Engine(decode, "tiny-r1"), lease_s=30)


@pytest.fixture(scope="session")
def vllm_gqa(tmp_path_factory: pytest.TempPathFactory) -> Iterator[CachingEngine]:
    if importlib.util.find_spec("vllm") is None:
        pytest.skip("vLLM is not installed here: no engine with a prefix cache, its contracts are NOT checked")
    with starting.with_prefix_cache(tmp_path_factory.mktemp("gqa"), starting.VLLM) as engine:
        yield engine


@pytest.fixture(scope="session")
def stand_in() -> tuple[str, ...]:
    """How the stand-in is started."""
    if importlib.util.find_spec("baton.engine.stand_in") is None:
        pytest.skip("baton.engine.stand_in is not there: only real vLLM is held to the contract")
    return starting.STAND_IN


@pytest.fixture(scope="session")
def stand_in_pair(stand_in: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    with starting.pair_of(stand_in, tmp_path_factory.mktemp("stand-in"), lease_s=2) as pair:
        yield pair


@pytest.fixture(scope="session")
def stand_in_gqa(stand_in: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Iterator[CachingEngine]:
    with starting.with_prefix_cache(tmp_path_factory.mktemp("stand-in"), stand_in) as engine:
        yield engine


@pytest.fixture(scope="session")
def stand_in_of_old(stand_in: tuple[str, ...], tmp_path_factory: pytest.TempPathFactory) -> Iterator[CachingEngine]:
    """As vLLM 0.20 would be; there is none here to compare it with."""
    old = ("--engine-version", "0.20.2")
    with starting.with_prefix_cache(tmp_path_factory.mktemp("stand-in"), stand_in, old) as engine:
        yield engine


@pytest.fixture(params=BOTH)
def pair(request: pytest.FixtureRequest) -> Iterator[Pair]:
    """A prefill and a decode engine; after the test nothing runs on them, and no KV is held."""
    pair: Pair = request.getfixturevalue(f"{request.param}_pair")
    yield pair
    for name, engine in (("prefill", pair.prefill), ("decode", pair.decode)):
        eventually(lambda engine=engine: engine.busy() == 0, f"{name} runs nothing and holds no KV", 10)


@pytest.fixture
def decode(pair: Pair) -> Engine:
    """One engine, for what any engine does."""
    return pair.decode


@pytest.fixture(params=BOTH)
def gqa(request: pytest.FixtureRequest) -> CachingEngine:
    """An engine with a prefix cache that publishes KV events; those of earlier tests are dropped."""
    engine: CachingEngine = request.getfixturevalue(f"{request.param}_gqa")
    engine.events.skip()
    return engine
