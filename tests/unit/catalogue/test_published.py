"""The published recipes' settings: all of them are there, every one is explained, and none is a slip of the pen."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from baton.catalogue import history, published
from baton.catalogue.engine import EngineCatalogue, engines, load_engine, versions
from baton.catalogue.published import Manifest, Meaning, Row
from baton.check.bundle import read_bundle
from baton.check.commands.launch import Launch
from baton.recipe.recipe import load_recipe

ROOT = Path(__file__).parents[3]
CORPUS = ROOT / "tests/unit/check/corpus/published"
MANIFEST_OF = {
    "hopper_seed": "Hopper, 16 + 16 GPUs",
    "hopper_main_style": "Hopper, 16 + 16 GPUs",
    "gb200_first_cut": "GB200, 8 + 8 GPUs, first cut (the README's)",
    "gb200_second_cut": "GB200, 8 + 8 GPUs, second cut",
    "gb200_third_cut": "GB200, 2 x 4 prefill and 8 decode GPUs, third cut",
}
ROWS = [(manifest.name, row) for manifest in published.manifests() for row in manifest.rows]


@pytest.fixture(scope="module")
def known() -> dict[str, list[EngineCatalogue]]:
    """Every catalogue, by engine."""
    return {name: [load_engine(name, version) for version in versions(name)] for name in engines()}


def is_known(meaning: Meaning, catalogues: list[EngineCatalogue]) -> bool:
    if meaning.kind == "env":
        return bool(history.of_env(catalogues, meaning.name))
    flag, _, path = meaning.name.partition(".")
    return bool(history.of_key(catalogues, flag, path) if path else history.of_flag(catalogues, flag))


def is_sound(meaning: Meaning, known: dict[str, list[EngineCatalogue]]) -> bool:
    """A setting that a release has had; else one whose owner is not an engine, with the place that says so."""
    if meaning.kind == "field":
        return meaning.of not in known
    if meaning.of in known:
        return is_known(meaning, known[meaning.of])
    return bool(meaning.source) and not any(is_known(meaning, catalogues) for catalogues in known.values())


@pytest.mark.parametrize("row", [row for _, row in ROWS], ids=lambda row: row.name)
def test_every_published_setting_is_explained(row: Row) -> None:
    meaning = published.meanings()[row.kind, row.name]
    assert meaning.does
    assert row.values


@pytest.mark.parametrize("meaning", published.meanings().values(), ids=lambda meaning: meaning.name)
def test_no_setting_is_a_slip_of_the_pen(meaning: Meaning, known: dict[str, list[EngineCatalogue]]) -> None:
    assert is_sound(meaning, known)
    for text in (meaning.does, meaning.differs, meaning.source):
        assert text == " ".join(text.split())
        assert "|" not in text
        assert "<" not in text


@pytest.mark.parametrize(
    "slip",
    [
        Meaning(kind="flag", name="--max-num-seq", does="x"),
        Meaning(kind="key", name="--eplb-config.window", does="x", source="somewhere"),
        Meaning(kind="env", name="VLLM_MOE_DP_CHUNK", does="x", source="somewhere"),
        Meaning(kind="env", name="VLLM_MOE_DP_CHUNK_SIZE", does="x", of="NCCL", source="somewhere"),
        Meaning(kind="env", name="NCCL_DEBUG", does="x", of="NCCL"),
    ],
    ids=lambda slip: slip.name,
)
def test_a_slip_of_the_pen_would_be_found(slip: Meaning, known: dict[str, list[EngineCatalogue]]) -> None:
    assert not is_sound(slip, known)


@pytest.mark.parametrize("manifest", published.manifests(), ids=lambda manifest: manifest.name)
def test_a_manifest_says_where_it_is_from_and_whose_place_we_take(manifest: Manifest) -> None:
    names = [(row.kind, row.name) for row in manifest.rows]
    assert len(set(names)) == len(names)
    assert all(origin.repository.count("/") == 1 and origin.path for origin in manifest.sources)
    commits = {origin.commit for origin in manifest.sources}
    assert all(commit in commits for row in manifest.rows for commit in row.only_in)
    assert all(len(row.published.keys() & {"both", "prefill"}) < 2 for row in manifest.rows)
    ours = {load_recipe(path).name for path in (ROOT / "recipes").glob("*.yaml")}
    assert manifest.recipes
    assert ours.issuperset(manifest.recipes)


def settings_of(launch: Launch) -> Iterator[tuple[str, str]]:
    """Names and values as rows have them; JSON is left to `published_json`."""
    for option in launch.options:
        name = ".".join((option.name or option.written.value, *(part.rstrip("+") for part in option.path)))
        values = [word.value for word in option.words]
        if not values or not values[0].startswith("{"):
            yield name, "off" if option.negated else " ".join(values) or "on"
    yield from ((name, word.value) for name, word in launch.env.items())


@pytest.mark.parametrize("folder", MANIFEST_OF)
def test_nothing_of_the_published_manifests_is_left_out(folder: str) -> None:
    """Every flag and variable of the manifests the checker is tested with has its row, with that value."""
    rows = {row.name: row for name, row in ROWS if name == MANIFEST_OF[folder]}
    bundle = read_bundle([CORPUS / folder / "deploy.yaml"])
    found = [(launch, name, value) for launch in bundle.engines for name, value in settings_of(launch)]
    assert len(found) > 20
    for launch, name, value in found:
        part = launch.intended
        assert part in ("prefill", "decode")
        published_value = rows[name].values[part]
        assert published_value == value or published_value.strip("[]").replace('"', "").replace(" ", "") == value, name


@pytest.mark.parametrize("folder", MANIFEST_OF)
def test_keys_of_published_json_are_rows(folder: str) -> None:
    rows = {row.name: row for name, row in ROWS if name == MANIFEST_OF[folder]}
    found = [
        (launch, option.name, path, value)
        for launch in read_bundle([CORPUS / folder / "deploy.yaml"]).engines
        for option in launch.options
        if option.words and option.words[0].value.startswith("{")
        for path, value in leaves(launch.json(option))
    ]
    assert found
    for launch, name, path, value in found:
        published_value = rows[f"{name}.{path}"].values[launch.intended or ""]
        assert published_value in (str(value), str(value).lower(), f'["{value}"]')


def leaves(tree: object, path: str = "") -> Iterator[tuple[str, object]]:
    if isinstance(tree, dict):
        for key, below in tree.items():
            yield from leaves(below, f"{path}.{key}".strip("."))
    else:
        yield path, tree[0] if isinstance(tree, list) else tree


def test_the_chunk_sizes_of_all_cuts_are_there() -> None:
    found = [row.values for _, row in ROWS if row.name == "VLLM_MOE_DP_CHUNK_SIZE"]
    assert sorted(values["decode"] for values in found) == ["1024", "384", "512"]
    assert all("prefill" not in values for values in found)


def test_most_recipes_have_no_published_one() -> None:
    assert published.of_recipe("tiny-local") == ()
    assert [manifest.name for manifest in published.of_recipe("vllm-dsr1")] == ["Hopper, 16 + 16 GPUs"]
