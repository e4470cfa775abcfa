"""The committed catalogues: their shape, and what was read by hand in the wheels beforehand."""

import gzip
import re
from pathlib import Path

import pytest

from baton.catalogue import engine, history
from baton.catalogue.engine import EngineCatalogue, engines, load_engine, versions
from baton.catalogue.extract.__main__ import CACHE, build

FOLDER = Path(engine.__file__).parent / "engines"
EVERY = [(e, v) for e in engines() for v in versions(e)]


@pytest.fixture(scope="module")
def vllm() -> list[EngineCatalogue]:
    return [load_engine("vllm", v) for v in versions("vllm")]


@pytest.mark.parametrize(("name", "version"), EVERY)
def test_a_catalogue_is_whole(name: str, version: str) -> None:
    """It has a source, and every flag, key and variable has a type; config flags lead to keys."""
    found = load_engine(name, version)
    assert (found.engine, found.version, found.format) == (name, version, 1)
    assert re.fullmatch(r"[0-9a-f]{64}", found.source.sha256)
    assert found.source.file.endswith(".whl")
    assert "/" not in found.source.file
    assert all(n.startswith("-") and f.type for n, f in found.flags.items())
    assert all(f.config in found.configs for f in found.flags.values() if f.config)
    assert all(k.config in found.configs for keys in found.configs.values() for k in keys.values() if k.config)
    assert all(v.type for v in found.envs.values())
    assert all(f.default in f.choices for f in found.flags.values() if f.choices and isinstance(f.default, str | int))
    options = [o for n, f in found.flags.items() for o in (n, *f.aliases)]
    assert len(options) == len(set(options))


def test_every_vllm_has_its_flags_and_names(vllm: list[EngineCatalogue]) -> None:
    """A version whose declarations moved would show as one that lacks most of them."""
    for found in vllm:
        assert len(found.flags) > 170, found.version
        assert len(found.envs) > 180, found.version
        assert found.flag("--tensor-parallel-size") is not None
        assert found.key("KVTransferConfig", "kv_connector") is not None
        assert found.key("EPLBConfig", "num_redundant_experts") is not None
        assert "DeepseekV3ForCausalLM" in found.enums["architecture"]
        assert "NixlConnector" in found.enums["kv_connector"]
        assert "FLASHMLA" in found.enums["attention_backend"]
        assert {"quantization", "reasoning_parser", "tool_parser"} <= found.enums.keys()


def test_the_versions_asked_for_are_there() -> None:
    """Seed-era, the sampled ones, the running one and the newest."""
    minors = {v.rsplit(".", 1)[0] for v in versions("vllm")}
    assert {"0.11", "0.14", "0.17", "0.20", "0.24", "0.28"} <= minors
    assert {"0.22.1", "0.32.0", "0.33.0"} <= set(versions("vllm"))
    assert {"0.8.0", "0.8.1", "1.6.1"} <= set(versions("dynamo.vllm")) & set(versions("dynamo.frontend"))


def test_all_together_are_small() -> None:
    """Below 2 MB compressed."""
    assert sum(len(gzip.compress(p.read_bytes(), mtime=0)) for p in FOLDER.glob("*.json")) < 2_000_000


def test_no_file_names_a_machine_or_an_index() -> None:
    """The source is a file name and a hash."""
    text = "".join(p.read_text(encoding="utf-8") for p in FOLDER.glob("*.json"))
    sources = re.findall(r'"source": (\{.*\})', text)
    assert len(sources) == len(EVERY)
    assert not any(word in s for s in sources for word in ("http", "/", "\\"))


# What a reader of the wheels of these seven versions wrote down: a name, and the versions among them that have it.
SAMPLES = ("0.11.0", "0.14.1", "0.17.1", "0.20.2", "0.24.0", "0.28.0", "0.32.0")
FLAG_ROWS = [
    ("--data-parallel-size", SAMPLES), ("--all2all-backend", SAMPLES[1:]), ("--block-size", SAMPLES),
    ("--cpu-offload-gb", SAMPLES), ("--enable-eplb", SAMPLES), ("--eplb-config", SAMPLES),
    ("--num-redundant-experts", SAMPLES[:1]), ("--enable-dbo", SAMPLES), ("--data-parallel-hybrid-lb", SAMPLES),
    ("--data-parallel-external-lb", SAMPLES[1:]), ("--data-parallel-multi-port-external-lb", SAMPLES[4:]),
    ("--speculative-config", SAMPLES), ("--kv-events-config", SAMPLES), ("--kv-transfer-config", SAMPLES),
    ("--headless", SAMPLES), ("--load-format", SAMPLES), ("--moe-backend", SAMPLES[2:]),
    ("--attention-backend", SAMPLES[1:]), ("--swap-space", SAMPLES[:3]), ("--disable-log-requests", SAMPLES[:2]),
    ("--cuda-graph-sizes", SAMPLES[:1]), ("--cudagraph-capture-sizes", SAMPLES[1:]),
    ("--guided-decoding-backend", SAMPLES[:1]), ("--max-num-partial-prefills", SAMPLES[:5]),
    ("--calculate-kv-scales", SAMPLES[:5]),
]  # fmt: skip
ENV_ROWS = [
    ("VLLM_ALL2ALL_BACKEND", SAMPLES[:2]), ("VLLM_MOE_DP_CHUNK_SIZE", SAMPLES[:3]),
    ("VLLM_ENABLE_MOE_DP_CHUNK", SAMPLES[1:3]), ("VLLM_USE_FLASHINFER_MOE_FP4", SAMPLES[:4]),
    ("VLLM_USE_FLASHINFER_MOE_MXFP4_MXFP8", SAMPLES[:4]), ("VLLM_ENABLE_FUSED_MOE_ACTIVATION_CHUNKING", SAMPLES[:3]),
    ("VLLM_ATTENTION_BACKEND", SAMPLES[:2]), ("VLLM_USE_V1", SAMPLES[:1]),
    ("VLLM_NIXL_ABORT_REQUEST_TIMEOUT", SAMPLES[:4]), ("VLLM_NIXL_SIDE_CHANNEL_HOST", SAMPLES),
]  # fmt: skip


@pytest.mark.parametrize(("name", "there"), FLAG_ROWS)
def test_flags_came_and_went_as_read_by_hand(vllm: list[EngineCatalogue], name: str, there: tuple[str, ...]) -> None:
    """In the seven samples; the versions between are the extractor's alone."""
    found = {c.version for c in vllm if (m := c.flag(name)) is not None and not m.is_abbreviated}
    assert found & set(SAMPLES) == set(there)


@pytest.mark.parametrize(("name", "there"), ENV_ROWS)
def test_variables_came_and_went_as_read_by_hand(
    vllm: list[EngineCatalogue], name: str, there: tuple[str, ...]
) -> None:
    """In the same samples."""
    assert {c.version for c in vllm if c.env(name) is not None} & set(SAMPLES) == set(there)


def test_all2all_backends_as_read_by_hand(vllm: list[EngineCatalogue]) -> None:
    """0.32.0 takes fourteen names less the one it keeps to itself; mori was taken in 0.17 and 0.20 and is no more."""
    now = load_engine("vllm", "0.32.0").flags["--all2all-backend"]
    assert set(now.choices) == {
        "allgather_reducescatter", "deepep_high_throughput", "deepep_low_latency", "deepep_v2", "mori_high_throughput",
        "mori_low_latency", "moonep", "nixl_ep", "flashinfer_nvlink_one_sided", "flashinfer_nvlink_two_sided",
        "flashinfer_all2allv", "naive", "pplx",
    }  # fmt: skip
    assert now.default == "allgather_reducescatter"
    mori = history.lives(vllm, lambda c: "mori" in c.enums.get("all2all_backend", ()))
    assert len(mori) == 1
    assert {c.version for c in vllm if "mori" in c.enums.get("all2all_backend", ())} & set(SAMPLES) == {
        "0.17.1", "0.20.2",
    }  # fmt: skip


def test_moe_backends_are_folded() -> None:
    """flashinfer-trtllm is flashinfer_trtllm to 0.32.0's own converter."""
    now = load_engine("vllm", "0.32.0").flags["--moe-backend"]
    assert now.folded
    assert {"auto", "flashinfer_trtllm", "flashinfer_cutlass", "flashinfer_cutedsl"} <= set(now.choices)


def test_connectors_as_read_by_hand(vllm: list[EngineCatalogue]) -> None:
    """0.32.0's seventeen; two old names are gone."""
    assert set(load_engine("vllm", "0.32.0").enums["kv_connector"]) == {
        "ExampleConnector", "ExampleHiddenStatesConnector", "LMCacheConnectorV1", "LMCacheMPConnector", "NixlConnector",
        "NixlPullConnector", "NixlPushConnector", "MultiConnector", "HiSparseConnector", "MoRIIOConnector",
        "OffloadingConnector", "DecodeBenchConnector", "MooncakeConnector", "MooncakeStoreConnector",
        "FlexKVConnectorV1", "SimpleCPUOffloadConnector", "HF3FSKVConnector",
    }  # fmt: skip
    shared = history.lives(vllm, lambda c: "SharedStorageConnector" in c.enums.get("kv_connector", ()))
    nccl = history.lives(vllm, lambda c: "P2pNcclConnector" in c.enums.get("kv_connector", ()))
    assert [(x.first, x.until) for x in shared] == [("0.11.0", "0.13.0")]
    assert nccl[-1].until == "0.24.0"


def test_the_seed_recipe_in_its_own_time() -> None:
    """Its flags were all good in the vLLM that its image's Dynamo asks for."""
    found = load_engine("vllm", "0.12.0")
    for flag in ("--all2all-backend", "--data-parallel-hybrid-lb", "--enable-dbo", "--dbo-decode-token-threshold",
                 "--async-scheduling", "--enable-eplb", "--eplb-config", "--compilation_config"):  # fmt: skip
        assert found.flag(flag) is not None, flag
    assert all(found.key("EPLBConfig", k) for k in ("window_size", "step_interval", "num_redundant_experts"))
    assert found.key("CompilationConfig", "cudagraph_mode") is not None


@pytest.mark.parametrize(
    ("program", "version", "package"), [("vllm", "0.32.0", "vllm"), ("dynamo.vllm", "1.6.1", "dynamo")]
)
def test_a_rebuild_is_byte_identical(program: str, version: str, package: str) -> None:
    """Where the wheel lies in the cache; it is not downloaded for this."""
    wheel = CACHE.expanduser() / load_engine(program, version).source.file
    if not wheel.exists():
        pytest.skip(f"{wheel.name} is not in the cache: python -m baton.catalogue.extract {package} {version}")
    for name, text in build(package, version, wheel).items():
        assert (FOLDER / name).read_text(encoding="utf-8") == text, name
