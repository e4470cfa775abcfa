"""kubectl reads what we render, as Go reads YAML, and builds every folder."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest
from support import beside
from support.any_recipe import NASTY
from support.objects import exact, ident, manifests, objects
from support.renders import CLUSTER_TARGETS, PUBLISHED, published, render

from baton.recipe.document import parse
from baton.recipe.recipe import Recipe

SMALL = """\
baton: 1
name: small
model: {name: m, path: /model-cache/m, dtype: bfloat16, max_model_len: 2048}
engine: {version: 0.32.0}
hardware: {accelerator: h200}
kv_transfer: {buffer_device: cuda}
roles: {prefill: {gpus_per_node: 1}, decode: {gpus_per_node: 1}}
"""


def kubectl(*words: str) -> str:
    done = subprocess.run([beside.kubectl(), *words], capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def write(folder: Path, files: dict[str, str]) -> None:
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")


@pytest.mark.parametrize("target", CLUSTER_TARGETS)
@pytest.mark.parametrize("stem", PUBLISHED)
def test_a_folder_is_built(tmp_path: Path, stem: str, target: str) -> None:
    """By the kustomize in kubectl; it keeps every object, and changes none."""
    files = dict(published(stem, target))
    write(tmp_path, files)
    built = objects({"built.yaml": kubectl("kustomize", str(tmp_path))})
    assert {ident(each): exact(each) for each in built} == {ident(each): exact(each) for each in objects(files)}


def test_go_reads_what_we_wrote(tmp_path: Path) -> None:
    """Every text that YAML could take for something else, through Go's reader: kubectl's own."""
    recipe = parse(SMALL, Recipe, source="small")
    env = {f"V{at}": text for at, text in enumerate(NASTY)}
    flags = {f"x{at}": text for at, text in enumerate(NASTY)}
    engine = recipe.engine.model_copy(update={"env": env, "flags": flags})
    files = render(recipe.model_copy(update={"engine": engine}), "kubernetes")
    for name in manifests(files):
        (tmp_path / name).write_text(files[name], encoding="utf-8")
        words = ("annotate", "--local", "-f", str(tmp_path / name), "read=by-go", "-o", "json")
        for ours, theirs in zip(objects({name: files[name]}), _objects(kubectl(*words)), strict=True):
            ours["metadata"].setdefault("annotations", {})["read"] = "by-go"
            assert exact(theirs) == exact(ours), name


def _objects(text: str) -> list[object]:
    """The JSON objects of a text that holds nothing between them."""
    decoder, found, text = json.JSONDecoder(), [], text.lstrip()
    while text:
        each, end = decoder.raw_decode(text)
        found += each["items"] if each["kind"] == "List" else [each]
        text = text[end:].lstrip()
    return found
