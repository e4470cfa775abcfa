"""Our own recipes check clean, and what is wrong on other hardware is said before anybody rents it."""

from pathlib import Path

import pytest

from baton.check.bundle import of_sources, read_bundle
from baton.check.run import check
from baton.check.text import Source

RECIPES = Path(__file__).parents[3] / "recipes"


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_a_recipe_checks_clean(path: Path) -> None:
    bundle = read_bundle([path])
    assert [launch.side for launch in bundle.engines] == ["prefill", "decode"]
    assert not [f"{f.span}: {f.code}: {f.message}" for f in check(bundle).findings]


HOPPER, GB200 = "deepseek-r1-hopper-32gpu", "deepseek-r1-gb200-16gpu"


@pytest.mark.parametrize(
    ("recipe", "old", "new", "message"),
    [
        (HOPPER, "accelerator: h200", "accelerator: h100-80gb", "on h100-80gb KV holds 15 sequences"),
        (HOPPER, "batched-tokens: 256 ", "batched-tokens: 8192 ", "on h200 nothing is left"),
        (HOPPER, "redundant_experts: 32", "redundant_experts: 30", "256 + 30 experts do not divide by 16 ranks"),
        (GB200, "nvlink_one_sided", "nvlink_two_sided", "gibberish on GB200"),
        ("tiny-local", "version: 0.32.0", "version: 0.10.0", "vllm 0.10.0 is older than the catalogue"),
    ],
)
def test_a_change_that_cannot_work_is_refused(recipe: str, old: str, new: str, message: str) -> None:
    path = RECIPES / f"{recipe}.yaml"
    text = path.read_text(encoding="utf-8")
    assert old in text
    found = check(of_sources([Source(str(path), text.replace(old, new))])).findings
    assert any(message in f.message for f in found), [f.message for f in found]
