"""What an engine's own settings tell the gateway about it, for the workers file."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import urlsplit

from baton.recipe.deployment import EngineSpec


def advertised(engine: EngineSpec, first_rank: int) -> dict[str, Any]:
    """Fields of a Worker that follow from an engine's flags; `first_rank` is the first rank behind its address.

    Rank i publishes its KV events i ports above the first (vLLM, distributed/kv_events.py, offset_endpoint_port).
    """
    fields: dict[str, Any] = {"attention_backend": str(engine.flags.get("attention-backend", ""))}
    if engine.flags.get("max-num-seqs"):
        fields["max_num_seqs"] = int(str(engine.flags["max-num-seqs"]))
    config = engine.flags.get("kv-events-config")
    if isinstance(config, str):
        config = json.loads(config)
    if isinstance(config, dict) and config.get("enable_kv_cache_events"):
        for field, key in (("kv_events_port", "endpoint"), ("kv_replay_port", "replay_endpoint")):
            parts = urlsplit(str(config.get(key) or ""))
            if parts.scheme == "tcp" and parts.port:
                fields[field] = parts.port + first_rank
    return fields
