"""`baton settings`: the committed pages, and what the verb prints."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from baton.base.errors import ConfigError
from baton.cli.settings import settings_page

RECIPES = Path(__file__).parents[3] / "recipes"
HOPPER = RECIPES / "deepseek-r1-hopper-32gpu.yaml"


@pytest.mark.parametrize("recipe", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_the_committed_page_is_a_fresh_one(recipe: Path) -> None:
    """After a change: baton settings recipes/NAME.yaml > recipes/NAME.md."""
    assert recipe.with_suffix(".md").read_text(encoding="utf-8") == settings_page(recipe)


@pytest.mark.parametrize("page", sorted(RECIPES.glob("*.md")), ids=lambda path: path.stem)
def test_every_page_has_a_recipe(page: Path) -> None:
    assert page.with_suffix(".yaml").exists()


def test_the_memory_is_what_check_sums() -> None:
    page = settings_page(HOPPER)
    assert "| routed experts | -46.0 | (256 + 32 redundant) / 16 ranks x 58 layers" in page
    assert "Not counted: activations, CUDA graphs" in page


def test_what_cannot_be_summed_is_said() -> None:
    page = settings_page(HOPPER, ["engine.flags.num-gpu-blocks-override=1000"])
    assert "left for KV" not in page
    assert page.count("Not summed:") == 2
    assert "| `--num-gpu-blocks-override` | `1000` | See the engine's own help. |" in page


def test_a_release_that_the_catalogue_lacks_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"vllm 0\.5\.0 is not in the catalogue"):
        settings_page(HOPPER, ["engine.version=0.5.0"])


def test_the_verb_prints_the_page() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "baton", "settings", HOPPER.name, "--set", "cluster.shared_memory=81Gi"],
        capture_output=True,
        cwd=RECIPES,
        check=False,
        encoding="utf-8",
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == settings_page(HOPPER, ["cluster.shared_memory=81Gi"])
    assert "| `sharedMemory.size` | `80Gi` |" in done.stdout
    assert "| `81Gi` |" in done.stdout


def test_what_is_no_recipe_is_refused(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "baton", "settings", str(tmp_path / "none.yaml")],
        capture_output=True,
        check=False,
        encoding="utf-8",
    )
    assert done.returncode == 2
    assert "none.yaml" in done.stderr
    assert "Traceback" not in done.stderr
