"""When names came and went, and what took their place."""

import pytest

from baton.catalogue import history
from baton.catalogue.engine import EngineCatalogue, Flag, Source, Takes, Variable, engines, load_engine, versions
from baton.catalogue.history import Life, Replacement


def catalogue(version: str, flags: tuple[str, ...] = (), envs: tuple[str, ...] = ()) -> EngineCatalogue:
    return EngineCatalogue(
        engine="vllm", version=version, format=1, source=Source("x.whl", "0"), parser=Takes(),
        flags={f: Flag(type="bool", negation=True) for f in flags}, configs={},
        envs={e: Variable(type="str") for e in envs}, enums={},
    )  # fmt: skip


def test_a_life_claims_no_more_than_the_versions_known() -> None:
    """It is bounded by the versions next to it that lack the name, where there are any."""
    known = [catalogue("0.9.1", ("--a",)), catalogue("0.10.0", ("--a",)), catalogue("0.11.0")]
    assert history.of_flag(known, "--a") == (Life("0.9.1", "0.10.0", None, "0.11.0"),)
    assert history.of_flag(known, "--no-a") == (Life("0.9.1", "0.10.0", None, "0.11.0"),)
    assert history.of_flag(known, "--b") == ()
    assert history.of_flag(list(reversed(known)), "--a") == history.of_flag(known, "--a")


def test_a_name_that_went_and_came_back_has_two_lives() -> None:
    """Each with its own bounds."""
    known = [catalogue("1", envs=("A",)), catalogue("2"), catalogue("3", envs=("A",))]
    assert history.of_env(known, "A") == (Life("1", "1", None, "2"), Life("3", "3", "2", None))


def test_an_abbreviation_is_not_a_life() -> None:
    """--max-num would be some flag in every version."""
    assert history.of_flag([catalogue("1", ("--alpha",))], "--alp") == ()


def test_close_matches_keep_the_negation() -> None:
    """Only flags that have one are offered for --no-x."""
    vllm = load_engine("vllm", "0.33.0")
    assert history.close_flags(vllm, "--tensor-paralel-size")[0] == "--tensor-parallel-size"
    assert history.close_flags(vllm, "--no-enable-prefix-cashing")[0] == "--no-enable-prefix-caching"
    assert history.close_flags(vllm, "--max_num_seq")[0] == "--max-num-seqs"
    assert history.close_envs(vllm, "VLLM_USE_DEEPGEMM")[0] == "VLLM_USE_DEEP_GEMM"
    assert history.close_flags(vllm, "--zzzzzzzzzzzz") == ()
    assert history.close("deepep_low_latancy", vllm.enums["all2all_backend"])[0] == "deepep_low_latency"


@pytest.fixture(scope="module")
def everything() -> dict[str, list[EngineCatalogue]]:
    return {e: [load_engine(e, v) for v in versions(e)] for e in engines()}


def has(catalogue: EngineCatalogue, kind: str, name: str) -> bool:
    if kind == "value":
        enum, value = name.split()
        return value in catalogue.enums[enum]
    if not name.startswith("-"):
        return catalogue.env(name) is not None
    found = catalogue.flag(name)
    if found is None or found.is_abbreviated:
        return False
    config = found.flag.config
    return not found.path or catalogue.key(config, found.path) is not None or catalogue.is_open(config, found.path)


@pytest.mark.parametrize("entry", history.replacements(), ids=lambda r: f"{r.engine}:{r.name}")
def test_every_replacement_is_borne_out_by_the_wheels(
    entry: Replacement, everything: dict[str, list[EngineCatalogue]]
) -> None:
    """The old name was there and is gone; the new one is there now; and somebody says so in public."""
    known = everything[entry.engine]
    old = history.lives(known, lambda c: has(c, entry.kind, entry.name))
    assert old
    assert old[-1].until is not None
    assert entry.source
    assert entry.by or entry.note
    if entry.by:
        by = f"{entry.name.split()[0]} {entry.by}" if entry.kind == "value" else entry.by
        new = history.lives(known, lambda c: has(c, entry.kind, by))
        assert new
        assert new[-1].until is None


def test_a_replacement_is_looked_up_by_name() -> None:
    """One a name; none where nobody wrote one down."""
    known = history.replacements()
    found = history.replacement(known, "vllm", "env", "VLLM_ATTENTION_BACKEND")
    assert found is not None
    assert found.by == "--attention-backend"
    assert history.replacement(known, "vllm", "env", "VLLM_NOTHING") is None
    assert len({(r.engine, r.kind, r.name) for r in known}) == len(known)
