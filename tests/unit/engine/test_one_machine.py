"""What a deployment on one machine can't have."""

from __future__ import annotations

from pathlib import Path

import pytest

from baton.base.errors import ConfigError
from baton.engine.one_machine import refuse_shared_ports
from baton.recipe.deployment import resolve
from baton.recipe.document import parse
from baton.recipe.recipe import Recipe


@pytest.mark.parametrize(
    ("pool", "is_refused"),
    [
        ("{dp_size: 2, load_balancing: external}", True),
        ("{dp_size: 1, load_balancing: external}", False),
        ("{dp_size: 2, load_balancing: hybrid}", False),
        ("{dp_size: 2}", False),
    ],
)
def test_external_load_balancing_needs_a_machine_of_its_own(pool: str, is_refused: bool) -> None:
    """Its ranks meet on a port that every replica of the machine would take."""
    text = (
        "{baton: 1, name: t, model: {name: m, path: /m, dtype: float32, max_model_len: 64}, engine: {version: 0.32.0}, "
        "hardware: {accelerator: cpu}, kv_transfer: {buffer_device: cpu}, "
        f"roles: {{prefill: {{}}, decode: {pool}}}}}"
    )
    deployment = resolve(parse(text, Recipe, source="t.yaml"), Path("/"))
    if not is_refused:
        refuse_shared_ports(deployment)
        return
    with pytest.raises(ConfigError, match=r"roles\.decode\.load_balancing: external with dp_size 2 .*leave it out"):
        refuse_shared_ports(deployment)
