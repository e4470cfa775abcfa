"""The workers file: what is written is read back equal, and what cannot serve is refused."""

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.any_recipe import TEXT

from baton.base.errors import ConfigError
from baton.recipe.document import parse
from baton.recipe.recipe import Role
from baton.recipe.workers import Worker, WorkersFile, dump_workers, load_workers

ATTACHED = """\
model: m
workers:
  - {name: p, role: prefill, url: "http://10.0.0.1:8100"}
  - {name: d, role: decode, url: "http://10.0.0.2:8200", dp_ranks: [0, 1], nixl_port: 5600, weights: abc}
"""

PLAIN = TEXT.filter(bool)
NAMES = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,10}[a-z0-9])?", fullmatch=True)
WORKERS = st.builds(
    Worker,
    name=NAMES,
    role=st.sampled_from(Role),
    url=st.sampled_from(["http://127.0.0.1:8000", "http://[::1]:80", "http://host"]),
    dp_ranks=st.lists(st.integers(0, 99), min_size=1, max_size=4, unique=True).map(tuple),
    nixl_port=st.none() | st.integers(0, 65535),
    weights=PLAIN | st.just(""),
    attention_backend=PLAIN | st.just(""),
)
FILES = st.builds(
    lambda workers, **fields: WorkersFile(
        workers=(
            *workers,
            Worker(name="the-prefill", role=Role.PREFILL, url="http://p:1"),
            Worker(name="the-decode", role=Role.DECODE, url="http://d:1"),
        ),
        **fields,
    ),
    st.lists(WORKERS, max_size=3, unique_by=lambda worker: worker.name),
    model=PLAIN,
    aliases=st.lists(PLAIN, max_size=3).map(tuple),
    dtype=st.sampled_from(["float32", "bfloat16", "float16"]),
    checkpoint=st.none() | PLAIN.map(Path),
)


@given(FILES)
def test_a_workers_file_is_read_back_equal(workers: WorkersFile) -> None:
    assert parse(dump_workers(workers), WorkersFile, source="w.yaml") == workers


def test_a_workers_file_is_read_back_equal_from_disk(tmp_path: Path) -> None:
    path = tmp_path / "w.yaml"
    path.write_text(ATTACHED)
    workers = load_workers(path)
    path.write_text(dump_workers(workers))
    assert load_workers(path) == workers
    assert workers.workers[1].dp_ranks == (0, 1)
    assert workers.workers[0].dp_ranks == (0,)
    assert workers.dtype == "float32"
    assert workers.checkpoint is None


def test_a_trailing_slash_of_a_url_is_nothing() -> None:
    workers = parse(ATTACHED.replace("8100", "8100/"), WorkersFile, source="w")
    assert workers.workers[0].url == "http://10.0.0.1:8100"


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("name: d", "name: p", "worker names must be unique; more than once: p"),
        ("role: decode", "role: prefill", "no worker has role decode"),
        ("role: prefill", "role: decode", "no worker has role prefill"),
        (
            "role: decode",
            "role: both",
            "w.yaml:4:15: workers.1.role: got 'both': Input should be 'prefill' or 'decode'",
        ),
        (
            "http://10.0.0.1:8100",
            "https://10.0.0.1",
            "workers.0.url: got 'https://10.0.0.1': expected http://host:port",
        ),
        ("http://10.0.0.1:8100", "10.0.0.1:8100", "expected http://host:port"),
        ("http://10.0.0.1:8100", "http://h:1/v1", "expected http://host:port, without a path"),
        ("http://10.0.0.1:8100", "http://h:1?x", "expected http://host:port"),
        ("http://10.0.0.1:8100", "http://me@h:1", "expected http://host:port"),
        ("http://10.0.0.1:8100", "http://", "expected http://host:port"),
        ("http://10.0.0.1:8100", "http://h:port", "workers.0.url: got 'http://h:port'"),
        ("http://10.0.0.1:8100", "http://h:99999", "workers.0.url: got 'http://h:99999'"),
        ("http://10.0.0.1:8100", "http://[::1", "workers.0.url"),
        ("[0, 1]", "[]", "workers.1.dp_ranks"),
        ("[0, 1]", "[0, 0]", "each rank may be listed once"),
        ("[0, 1]", "[-1]", "workers.1.dp_ranks.0: got -1"),
        ("[0, 1]", "['0']", "workers.1.dp_ranks.0: got '0'"),
        ("5600", "70000", "workers.1.nixl_port: got 70000"),
        ("weights: abc", "weigths: abc", "did you mean 'weights'?"),
        ("model: m", "model: ''", "w.yaml:1:1: model"),
        ("name: p", "name: P", "workers.0.name"),
        ("model: m", "model: m\ndtype: fp8", "w.yaml:2:1: dtype: got 'fp8'"),
        ("model: m", "model: m\nbaton: 2", "w.yaml:2:1: baton: got 2"),
    ],
)
def test_a_workers_file_that_cannot_serve_is_refused_with_the_reason(old: str, new: str, said: str) -> None:
    assert old in ATTACHED
    with pytest.raises(ConfigError) as caught:
        parse(ATTACHED.replace(old, new, 1), WorkersFile, source="w.yaml")
    assert said in str(caught.value)


def test_a_worker_has_no_mutable_part() -> None:
    worker: Any = parse(ATTACHED, WorkersFile, source="w").workers[0]
    with pytest.raises(ValueError, match="frozen"):
        worker.url = "http://other"
    assert isinstance(worker.dp_ranks, tuple)
