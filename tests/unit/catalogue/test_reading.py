"""The typed reader: finding flags as the engine's parser does, keys, variables, versions."""

import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from baton.base.errors import ConfigError
from baton.catalogue.engine import EngineCatalogue, embedding, engines, load_engine, versions


@pytest.fixture(scope="module")
def vllm() -> EngineCatalogue:
    return load_engine("vllm", "0.32.0")


@pytest.mark.parametrize(
    ("written", "name", "negated"),
    [
        ("--max-num-seqs", "--max-num-seqs", False),
        ("--max_num_seqs=4", "--max-num-seqs", False),
        ("-tp", "--tensor-parallel-size", False),
        ("--no-enable-prefix-caching", "--enable-prefix-caching", True),
        ("--no_enable_prefix_caching", "--enable-prefix-caching", True),
        ("--device-memory-utilization", "--gpu-memory-utilization", False),
        ("-O3", "--optimization-level", False),
        ("--tensor-par", "--tensor-parallel-size", False),
    ],
)
def test_a_flag_is_found_as_the_parser_finds_it(vllm: EngineCatalogue, written: str, name: str, negated: bool) -> None:
    """Dashes and underscores, aliases, negations and abbreviations all lead to the flag."""
    found = vllm.flag(written)
    assert found is not None
    assert (found.name, found.negated) == (name, negated)


def test_an_abbreviation_of_two_flags_is_none_of_them(vllm: EngineCatalogue) -> None:
    """What it could be is listed; an exact name wins over those that begin with it."""
    assert vllm.flag("--enable-") is None
    assert len(vllm.abbreviated("--enable-")) > 20
    assert vllm.flag("--swap-space") is None
    assert vllm.abbreviated("--swap-space") == ()
    exact = vllm.flag("--model")
    assert exact is not None
    assert not exact.is_abbreviated


@settings(deadline=None)
@given(st.text() | st.from_regex(r"--?[a-zA-Z_.=-]*", fullmatch=True))
def test_any_text_can_be_looked_up(written: str) -> None:
    """It is a flag's or nobody's, and never a traceback."""
    known = load_engine("vllm", "0.11.0")
    found = known.flag(written)
    assert found is None or known.flags[found.name] is found.flag
    assert known.key("CompilationConfig", written) is None or written
    known.is_open("CompilationConfig", written)


@pytest.mark.parametrize("written", ["", "-", "--", "---", "=", "--=", "-O", "--.a", "x", "--a.b.c=d", "-Ox"])
def test_no_text_is_too_strange_to_look_up(vllm: EngineCatalogue, written: str) -> None:
    """It is found or not found."""
    found = vllm.flag(written)
    assert found is None or found.name in vllm.flags


def test_keys_after_a_dot(vllm: EngineCatalogue) -> None:
    """Keys keep their underscores; list items are added with +."""
    found = vllm.flag("--compilation_config.pass_config.fuse_norm_quant")
    assert found is not None
    assert (found.name, found.path) == ("--compilation-config", ("pass_config", "fuse_norm_quant"))
    key = vllm.key(found.flag.config, found.path)
    assert key is not None
    assert key.type == "bool"
    short = vllm.flag("-cc.mode=3")
    assert short is not None
    assert (short.name, short.path) == ("--compilation-config", ("mode",))
    ops = vllm.key("CompilationConfig", "custom_ops+")
    assert ops is not None
    assert (ops.type, ops.items) == ("list", "str")
    assert vllm.key("CompilationConfig", "pass_config.enable_fusion") is None


def test_keys_below_any_json_are_not_judged(vllm: EngineCatalogue) -> None:
    """The catalogue says that it cannot know them."""
    path = "kv_connector_extra_config.kv_lease_duration"
    assert vllm.key("KVTransferConfig", path) is None
    assert vllm.is_open("KVTransferConfig", path)
    assert not vllm.is_open("CompilationConfig", "pass_config.enable_fusion")


def test_a_parser_without_abbreviations_has_none() -> None:
    """dynamo.vllm 1.6.1 turned them off and does not exchange underscores."""
    dynamo = load_engine("dynamo.vllm", "1.6.1")
    assert dynamo.flag("--disaggregation-mode") is not None
    assert dynamo.flag("--disaggregation-mod") is None
    assert dynamo.flag("--disaggregation_mode") is None
    assert load_engine("dynamo.vllm", "0.8.1").flag("--is_prefill_work") is not None


def test_a_program_that_embeds_an_engine_takes_its_flags() -> None:
    """Not those of the engine's own server."""
    dynamo = load_engine("dynamo.vllm", "0.8.1")
    assert dynamo.takes_engine_flags_of is not None
    assert (dynamo.takes_engine_flags_of.engine, dynamo.takes_engine_flags_of.version) == ("vllm", "0.12.0")
    both = embedding(dynamo, load_engine("vllm", "0.12.0"))
    assert both.flag("--is-prefill-worker") is not None
    assert both.flag("--all2all-backend") is not None
    assert both.flag("--api-key") is None
    assert both.key("EPLBConfig", "num_redundant_experts") is not None
    assert both.env("VLLM_MOE_DP_CHUNK_SIZE") is not None


def test_versions_are_in_order_and_unknown_ones_are_named() -> None:
    """An unknown version or engine says which there are, and how to add one."""
    assert engines() == ("dynamo.frontend", "dynamo.vllm", "vllm")
    known = versions("vllm")
    assert known[0] == "0.11.0"
    assert known.index("0.22.1") < known.index("0.32.0") < known.index("0.33.0")
    with pytest.raises(ConfigError, match=r"vllm 9\.9 is not in the catalogue, which has 0\.11\.0.*extract vllm 9\.9"):
        load_engine("vllm", "9.9")
    with pytest.raises(ConfigError, match=r"engine 'sglang' .* dynamo\.frontend, dynamo\.vllm, vllm"):
        versions("sglang")


def test_importing_the_reader_reads_nothing() -> None:
    """Neither a version nor the extractor is loaded until it is asked for."""
    code = (
        "import sys, builtins, io; seen = []; old = io.open_code\n"
        "sys.addaudithook(lambda e, a: seen.append(str(a[0])) if e == 'open' else None)\n"
        "import baton.catalogue.engine, baton.catalogue.history, baton.catalogue.hardware, baton.catalogue.model\n"
        "print([s for s in seen if s.endswith('.json')], 'baton.catalogue.extract' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[] False"
