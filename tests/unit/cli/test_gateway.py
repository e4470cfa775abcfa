"""`baton gateway`: what its options become."""

import contextlib
import inspect
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from baton.base.errors import ConfigError
from baton.cli import gateway as verb
from baton.recipe.recipe import Gateway


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


def test_the_verbs_defaults_are_the_recipes() -> None:
    options = inspect.signature(verb.gateway).parameters
    of_recipe = {name: field.default for name, field in Gateway.model_fields.items()}
    assert {name: options[name].default for name in of_recipe} == of_recipe


def test_the_keys_file_is_looked_at_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever one look ends in."""
    due: list[tuple[float, Any, tuple[Any, ...]]] = []

    class Loop:
        def call_later(self, delay_s: float, call: Any, *args: Any) -> None:
            due.append((delay_s, call, args))

    class Broken:
        looks = 0

        def refresh(self, now_s: float) -> None:
            self.looks += 1
            raise OSError("a disk that is gone")

    monkeypatch.setattr(verb.asyncio, "get_running_loop", Loop)
    keys = Broken()
    with contextlib.suppress(OSError):
        verb._look_at(keys)  # type: ignore[arg-type]
    for _ in range(2):
        delay_s, call, args = due.pop()
        assert delay_s > 0
        with contextlib.suppress(OSError):
            call(*args)
    assert (keys.looks, len(due)) == (3, 1)
