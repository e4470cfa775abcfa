"""Where Hugging Face's library keeps what it fetched."""

from __future__ import annotations

from pathlib import Path

import pytest

from baton.local.hub import cache, snapshot


@pytest.mark.parametrize(
    ("env", "folder"),
    [
        ({}, "/home/me/.cache/huggingface/hub"),
        ({"XDG_CACHE_HOME": "/c"}, "/c/huggingface/hub"),
        ({"XDG_CACHE_HOME": "/c", "HF_HOME": "/hf"}, "/hf/hub"),
        ({"HF_HOME": "/hf", "HF_HUB_CACHE": "/hub"}, "/hub"),
    ],
)
def test_the_nearest_variable_wins(env: dict[str, str], folder: str) -> None:
    """As huggingface_hub documents it."""
    assert cache(env, Path("/home/me")) == Path(folder)


def test_a_snapshot() -> None:
    """One folder a commit."""
    assert snapshot(Path("/hub"), "a/b", "c0ffee") == Path("/hub/models--a--b/snapshots/c0ffee")
