"""`baton check` reads what `baton render` writes, finds its engines, knows every option, and has nothing to say."""

from __future__ import annotations

import pytest
from support.renders import CLUSTER_TARGETS, PUBLISHED, RECIPES, published

from baton.check.bundle import Bundle, of_sources
from baton.check.run import check
from baton.check.text import Source
from baton.engine.dynamo import WORKER
from baton.recipe.recipe import load_recipe

PROGRAM = {"kubernetes": "vllm", "dynamo": WORKER, "dynamo-v1beta1": WORKER}


def bundle(stem: str, target: str) -> Bundle:
    files = published(stem, target)
    sources = [Source(name, text) for name, text in files.items() if name.endswith(".yaml")]
    return of_sources(sources, accelerator=load_recipe(RECIPES / f"{stem}.yaml").hardware.accelerator)


@pytest.mark.parametrize("target", CLUSTER_TARGETS)
@pytest.mark.parametrize("stem", PUBLISHED)
def test_every_engine_is_found_and_each_of_its_options_is_known(stem: str, target: str) -> None:
    """To the parser of the release that its image holds, as the catalogue has it."""
    engines = bundle(stem, target).engines
    assert {launch.side for launch in engines} == {"prefill", "decode"}
    for launch in engines:
        assert launch.engine == PROGRAM[target]
        assert len(launch.version.catalogues) == 1
        assert [option.written.value for option in launch.options if option.flag is None] == []
        assert len(launch.positionals) == (1 if target == "kubernetes" else 0), "the model"


@pytest.mark.parametrize("target", CLUSTER_TARGETS)
@pytest.mark.parametrize("stem", PUBLISHED)
def test_there_is_nothing_to_find(stem: str, target: str) -> None:
    assert not [f"{f.span}: {f.code}: {f.message}" for f in check(bundle(stem, target)).findings]
