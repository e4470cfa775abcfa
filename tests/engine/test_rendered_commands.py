"""Every command line we render, parsed by the engine's own parser, up to what needs a model or a GPU."""

# ruff: noqa: PLC0415 - torch and vLLM take seconds to import and are not there everywhere

from __future__ import annotations

import importlib.metadata
import re
import shlex
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from support import kubelet
from support.objects import objects
from support.recorder import Recorder
from support.renders import PUBLISHED, RECIPES, render

from baton.base.errors import ConfigError
from baton.recipe.document import parse
from baton.recipe.overrides import override
from baton.recipe.recipe import Recipe

ENV = {"LWS_LEADER_ADDRESS": "leader.example", "LWS_WORKER_INDEX": "1"}


@pytest.fixture(scope="module", autouse=True)
def _without_plugins() -> Iterator[None]:
    """Keep the engine's arguments from loading baton's plugin into this process: other tests need vLLM as it is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("vllm.plugins.plugins_loaded", True)
        yield


@pytest.fixture(scope="module")
def version() -> str:
    return importlib.metadata.version("vllm").split("+")[0]


def first_rank(text: str) -> str:
    """What a worker's shell makes of its index, 1: the number of ranks on a node."""
    found = re.search(r"LWS_WORKER_INDEX \* (\d+)", text)
    assert found is not None
    return found[1]


def command_lines(files: Mapping[str, str]) -> Iterator[list[str]]:
    """What stands behind `vllm` in each container of each group."""
    for each in objects(files):
        if each["kind"] == "LeaderWorkerSet":
            group = each["spec"]["leaderWorkerTemplate"]
            for template in (group[part] for part in ("leaderTemplate", "workerTemplate") if part in group):
                (container,) = template["spec"]["containers"]
                words = kubelet.words(container, kubelet.environment(container, {"status.podIP": "10.0.0.7"}, ENV))
                if words[0] == "/bin/sh":
                    words = [*words[4:], "--data-parallel-start-rank", first_rank(words[2])]
                assert words[0] == "vllm"
                yield words[1:]


def scripts(files: Mapping[str, str]) -> Iterator[list[str]]:
    """What each script of an engine gives `vllm`, as the shell puts it."""
    with tempfile.TemporaryDirectory() as folder:
        recorder = Recorder(Path(folder), ["vllm"])
        for text in (text for name, text in files.items() if name.startswith(("prefill", "decode"))):
            yield recorder.run(["sh", "-c", text], {}).words[1:]


@pytest.fixture(scope="module")
def serve_parser() -> Any:
    """The parser of `vllm serve`; to make it takes a second."""
    from vllm.entrypoints.launchers.cli_args import make_arg_parser
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    return make_arg_parser(FlexibleArgumentParser())


def parse_serve(parser: Any, words: list[str]) -> Any:
    """The engine's arguments; a failure if its parser, or its own check of what it parsed, refuses the words."""
    from vllm.engine.arg_utils import AsyncEngineArgs
    from vllm.entrypoints.launchers.cli_args import validate_parsed_serve_args

    assert words[0] == "serve"
    try:
        args = parser.parse_args(words[1:])
    except SystemExit:
        pytest.fail(f"the engine refuses {shlex.join(words)}")
    args.model = args.model_tag
    validate_parsed_serve_args(args)
    return AsyncEngineArgs.from_cli_args(args)


def renders(version: str) -> Iterator[tuple[str, list[str]]]:
    """Every recipe's command lines for the installed release, with the recipe they come from."""
    for path in sorted(RECIPES.glob("*.yaml")):
        text = override(path.read_text(encoding="utf-8"), [f"engine.version={version}"], source=path.stem)
        recipe = parse(text, Recipe, source=path.stem)
        for target, lines in (("kubernetes", command_lines), ("local", scripts)):
            try:
                files = render(recipe, target)
            except ConfigError:
                continue
            for words in lines(files):
                yield path.stem, words


def test_the_engine_takes_every_command_line(serve_parser: Any, version: str) -> None:
    seen = Counter[str]()
    for stem, words in renders(version):
        given = parse_serve(serve_parser, words)
        seen[stem] += 1
        assert given.kv_transfer_config.kv_connector == "NixlConnector", stem
        assert given.kv_transfer_config.kv_role in ("kv_producer", "kv_consumer"), stem
        assert given.served_model_name, stem
    assert set(seen) >= set(PUBLISHED)
    assert len(seen) == len(list(RECIPES.glob("*.yaml")))


def test_what_the_recipe_says_is_what_the_engine_understands(serve_parser: Any, version: str) -> None:
    """Configs that are JSON arrive as the engine's own objects, numbers as numbers, two nodes with their ranks."""
    of_hopper = [words for stem, words in renders(version) if stem == "deepseek-r1-hopper-32gpu"]
    leader, worker, *_ = (parse_serve(serve_parser, words) for words in of_hopper)
    for given in (leader, worker):
        assert (given.data_parallel_size, given.data_parallel_size_local, given.tensor_parallel_size) == (16, 8, 1)
        assert given.data_parallel_hybrid_lb is True
        assert given.data_parallel_address == ENV["LWS_LEADER_ADDRESS"]
        assert given.enable_expert_parallel is True
        assert given.eplb_config.num_redundant_experts == 32
        assert given.kv_transfer_config.kv_connector_extra_config["kv_lease_duration"] == 30
    assert (leader.data_parallel_start_rank, worker.data_parallel_start_rank) == (0, 8)


def test_a_flag_that_the_engine_does_not_have_is_refused(serve_parser: Any, version: str) -> None:
    stem, words = next(renders(version))
    with pytest.raises(pytest.fail.Exception, match="the engine refuses"):
        parse_serve(serve_parser, [*words, "--no-such-flag"])
    assert stem
