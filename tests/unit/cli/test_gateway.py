"""`baton gateway`: what its options become."""

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from baton.base.errors import ConfigError
from baton.cli import gateway as verb


class Served(Exception):
    """Ends the verb as soon as it would serve."""


@pytest.mark.parametrize("drain_s", [10.0, 600.0])
def test_requests_go_on_as_long_as_they_may_drain(
    drain_s: float, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    given: dict[str, Any] = {}

    @contextlib.asynccontextmanager
    async def serve(*_: object, **options: object) -> AsyncIterator[None]:
        given.update(options)
        raise Served
        yield

    monkeypatch.setattr(verb, "serve", serve)
    workers = tmp_path / "workers.yaml"
    roles = ("prefill", "decode")
    listed = "".join(f"- {{name: {role}, role: {role}, url: 'http://{role}:8000'}}\n" for role in roles)
    workers.write_text(f"baton: 1\nmodel: m\nworkers:\n{listed}")
    with pytest.raises(Served):
        verb.gateway(workers, drain_s=drain_s)
    assert given["grace_s"] == drain_s


def test_a_missing_workers_file_is_the_persons_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"workers\.yaml"):
        verb.gateway(tmp_path / "workers.yaml")
