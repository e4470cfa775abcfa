"""deploy/ is what a fresh render gives, byte for byte, and nothing else; a change of a recipe is a change there."""

from __future__ import annotations

from pathlib import Path

import pytest
from support.renders import CLUSTER_TARGETS, PUBLISHED, RECIPES, TARGETS, published, render

from baton.recipe.document import parse
from baton.recipe.overrides import override
from baton.recipe.recipe import Recipe, load_recipe

DEPLOY = RECIPES.parent / "deploy"
AGAIN = "baton render recipes/{stem}.yaml --target {target} -o deploy/{stem}/{target}"


@pytest.mark.parametrize("target", CLUSTER_TARGETS)
@pytest.mark.parametrize("stem", PUBLISHED)
def test_a_folder_is_a_fresh_render(stem: str, target: str) -> None:
    folder, files = DEPLOY / stem / target, published(stem, target)
    command = AGAIN.format(stem=stem, target=target)
    assert folder.is_dir(), command
    there = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert there == set(files), command
    changed = [name for name, text in files.items() if (folder / name).read_bytes() != text.encode()]
    assert not changed, command


def test_no_folder_has_lost_its_recipe() -> None:
    for path in DEPLOY.rglob("*"):
        stem, *rest = path.relative_to(DEPLOY).parts
        if stem == "monitoring":  # written by hand, for every deployment
            continue
        assert (RECIPES / f"{stem}.yaml").is_file(), path
        assert not rest or rest[0] in TARGETS, path


def test_a_second_render_gives_the_same_bytes() -> None:
    """In another process order of sets and dictionaries could differ; in this one, anything that counts or dates."""
    for stem in PUBLISHED[:1]:
        for target in CLUSTER_TARGETS:
            assert render(load_recipe(RECIPES / f"{stem}.yaml"), target) == published(stem, target)


SMALL = """\
baton: 1
name: small
model: {name: m, path: /model-cache/m, dtype: bfloat16, max_model_len: 2048}
engine:
  version: 0.32.0
  flags: {enable-scale-out: true, seed: 7}
  env: {VLLM_SKIP_P2P_CHECK: "1"}
hardware: {accelerator: h200}
kv_transfer: {buffer_device: cuda}
roles:
  prefill: {gpus_per_node: 1, flags: {max-num-seqs: 31337}}
  decode: {gpus_per_node: 1, flags: {max-num-seqs: 41414}}
eras:
  - era: vllm-0.11..0.29
    engine: {flags: {enable-scale-out: null}}
  - era: vllm-0.11..0.14
    engine: {env: {VLLM_SKIP_P2P_CHECK: null}}
    decode: {env: {VLLM_MOE_DP_CHUNK_SIZE: "384"}, flags: {max-num-seqs: 42424}}
"""


def text_of(recipe: str, *settings: str, target: str = "kubernetes") -> str:
    files = render(parse(override(recipe, settings, source="small"), Recipe, source="small"), target, Path("/"))
    return "".join(files.values())


@pytest.mark.parametrize(
    ("setting", "seen"),
    [
        (", seed: 7", "--seed"),
        ('VLLM_SKIP_P2P_CHECK: "1"', "VLLM_SKIP_P2P_CHECK"),
        ("max-num-seqs: 31337", "31337"),
        ("max-num-seqs: 41414", "41414"),
    ],
)
@pytest.mark.parametrize("target", TARGETS)
def test_what_is_taken_out_of_a_recipe_goes_from_the_render(target: str, setting: str, seen: str) -> None:
    assert setting in SMALL
    assert seen in text_of(SMALL, target=target)
    assert seen not in text_of(SMALL.replace(setting, ""), target=target)


def test_another_engine_version_brings_its_era() -> None:
    new, old, older = (text_of(SMALL, f"engine.version={version}") for version in ("0.33.0", "0.22.1", "0.14.1"))
    assert [text.count("--enable-scale-out") for text in (new, old, older)] == [2, 0, 0]
    assert [text.count("VLLM_SKIP_P2P_CHECK") for text in (new, old, older)] == [2, 2, 0]
    assert [text.count("VLLM_MOE_DP_CHUNK_SIZE") for text in (new, old, older)] == [0, 0, 1]
    assert ["41414" in text for text in (new, old, older)] == [True, True, False]
    assert ["42424" in text for text in (new, old, older)] == [False, False, True]
    for text, version in ((new, "0.33.0"), (old, "0.22.1"), (older, "0.14.1")):
        assert f"vllm/vllm-openai:v{version}" in text
    assert len({text.splitlines()[0] for text in (new, old, older)}) == 3, "each says another hash"
