"""KV events as vLLM wrote them up to 0.20: an event is an array behind its name, not a map.

Held against the stand-in only, which is to speak for such a release: there is no old vLLM here.
Source: vLLM 0.11 to 0.20, distributed/kv_events.py (`array_like=True`); 0.24 has maps.
"""

from __future__ import annotations

from contract.engines import COMPLETIONS, CachingEngine


def test_an_old_release_stores_and_clears_in_arrays(stand_in_of_old: CachingEngine) -> None:
    old = stand_in_of_old
    old.events.skip()
    size = old.engine.block_size
    prompt = old.engine.prompt(2 * size + 1)
    old.engine.ask(COMPLETIONS, prompt=prompt, max_tokens=1)
    _, ((name, hashes, parent, token_ids, block_size, lora_id, medium, *_),), dp_rank = old.events.next().payload
    assert (name, parent, token_ids, block_size) == ("BlockStored", None, prompt[: 2 * size], size)
    assert (len(hashes), lora_id, medium, dp_rank) == (2, None, "GPU", 0)
    old.engine.client.post("/reset_prefix_cache")
    old.engine.ask(COMPLETIONS, prompt=prompt, max_tokens=1)
    assert [event[0] for event in old.events.next().events] == ["AllBlocksCleared", "BlockStored"]


def test_an_old_release_removes_in_arrays(stand_in_of_old: CachingEngine) -> None:
    old = stand_in_of_old
    old.events.skip()
    removed: list[list[object]] = []
    while not removed:
        old.engine.ask(COMPLETIONS, prompt=old.engine.prompt(20 * old.engine.block_size + 1), max_tokens=1)
        events = old.events.next().payload[1]
        removed = [event for event in events if event[0] == "BlockRemoved"]
    assert all(event[2] == "GPU" and len(event[1]) == 1 for event in removed)
