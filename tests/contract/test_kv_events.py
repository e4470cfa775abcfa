"""KV events: what an engine with a prefix cache publishes of the blocks it stores, evicts and clears.

Surprises, all of real vLLM 0.32.0:
- A prompt of whole blocks that is all there computes its last block again and stores it beside the first, under the
  same hash: BlockStored comes twice for one hash, and so does BlockRemoved, once a copy.
- A cleared cache is told of with the next step that has something to do, not when it is cleared.
- A hash is that of one process: another, of the same model, has others for the same tokens.
"""

from __future__ import annotations

from typing import Any

from contract.engines import COMPLETIONS, CachingEngine, JsonObject, KvEvents

STORED = {"type", "block_hashes", "parent_block_hash", "token_ids", "block_size", "lora_id", "medium", "lora_name",
          "extra_keys", "group_idx", "kv_cache_spec_kind"}  # fmt: skip
REMOVED = {"type", "block_hashes", "medium", "group_idx"}


def served(gqa: CachingEngine, prompt: list[int], **asked: Any) -> JsonObject:
    return gqa.engine.ask(COMPLETIONS, **{"prompt": prompt, "max_tokens": 1, **asked})


def stored(gqa: CachingEngine) -> JsonObject:
    """The next batch's only stored blocks; what had to be evicted for them is left out."""
    (event,) = [event for event in gqa.events.next().events if event["type"] == "BlockStored"]
    return event


def test_a_batch_is_a_list_of_time_events_and_rank(gqa: CachingEngine) -> None:
    served(gqa, gqa.engine.prompt(gqa.engine.block_size + 1))
    batch = gqa.events.next()
    assert batch.topic == gqa.topic
    time, events, dp_rank = batch.payload
    assert isinstance(time, float)
    assert isinstance(events, list)
    assert dp_rank == 0


def test_stored_blocks_are_told_in_one_event_with_the_prompts_tokens(gqa: CachingEngine) -> None:
    size = gqa.engine.block_size
    prompt = gqa.engine.prompt(3 * size + 4)
    served(gqa, prompt)
    event = stored(gqa)
    assert event.keys() == STORED
    assert (event["type"], event["block_size"], event["medium"]) == ("BlockStored", size, "GPU")
    assert event["token_ids"] == prompt[: 3 * size], "whole blocks only"
    assert len(set(event["block_hashes"])) == 3
    assert all(0 <= block < 1 << 64 for block in event["block_hashes"])
    assert event["parent_block_hash"] is None
    assert event["extra_keys"] == [None, None, None]
    assert (event["lora_id"], event["lora_name"], event["group_idx"]) == (None, None, 0)
    assert event["kv_cache_spec_kind"] == "full_attention"


def test_blocks_behind_a_known_beginning_name_its_last_as_their_parent(gqa: CachingEngine) -> None:
    size = gqa.engine.block_size
    prompt = gqa.engine.prompt(2 * size)
    served(gqa, prompt)
    first = stored(gqa)
    more = gqa.engine.prompt(size + 1)
    served(gqa, prompt + more)
    second = stored(gqa)
    assert second["parent_block_hash"] == first["block_hashes"][-1]
    assert second["token_ids"] == more[:size], "what is there already is not told again"


def test_a_block_that_decoding_fills_is_told_when_it_is_full(gqa: CachingEngine) -> None:
    size = gqa.engine.block_size
    prompt = gqa.engine.prompt(size + 4)
    answer = served(gqa, prompt, max_tokens=size, ignore_eos=True, return_token_ids=True)
    prefilled, decoded = stored(gqa), stored(gqa)
    assert decoded["parent_block_hash"] == prefilled["block_hashes"][-1]
    assert decoded["token_ids"] == prompt[size:] + answer["choices"][0]["token_ids"][: size - 4]


def test_a_prompt_that_is_all_there_is_not_told_of(gqa: CachingEngine) -> None:
    prompt, other = gqa.engine.prompt(gqa.engine.block_size + 1), gqa.engine.prompt(gqa.engine.block_size + 1)
    for asked in (prompt, prompt, other):
        served(gqa, asked)
    assert [stored(gqa)["token_ids"][0], stored(gqa)["token_ids"][0]] == [prompt[0], other[0]]


def test_the_last_of_whole_blocks_is_stored_again_under_its_hash(gqa: CachingEngine) -> None:
    prompt = gqa.engine.prompt(2 * gqa.engine.block_size)
    served(gqa, prompt)
    served(gqa, prompt)
    first, second = stored(gqa), stored(gqa)
    assert second["block_hashes"] == first["block_hashes"][1:]
    assert second["parent_block_hash"] == first["block_hashes"][0]


def test_a_salt_is_an_extra_key_of_the_first_block_and_changes_every_hash(gqa: CachingEngine) -> None:
    prompt = gqa.engine.prompt(2 * gqa.engine.block_size + 1)
    served(gqa, prompt)
    served(gqa, prompt, cache_salt="spice")
    plain, salted = stored(gqa), stored(gqa)
    assert salted["extra_keys"] == [["spice"], None]
    assert salted["token_ids"] == plain["token_ids"]
    assert not set(salted["block_hashes"]) & set(plain["block_hashes"])


def test_evicted_blocks_are_told_one_by_one_from_the_end_of_the_chain(gqa: CachingEngine) -> None:
    size = gqa.engine.block_size
    served(gqa, gqa.engine.prompt(4 * size + 1))
    first = stored(gqa)
    removed: list[JsonObject] = []
    while not any(event["block_hashes"] == first["block_hashes"][:1] for event in removed):
        served(gqa, gqa.engine.prompt(20 * size + 1))
        removed += [event for event in gqa.events.next().events if event["type"] == "BlockRemoved"]
    assert all(event.keys() == REMOVED and len(event["block_hashes"]) == 1 for event in removed)
    mine = [event["block_hashes"][0] for event in removed if event["block_hashes"][0] in first["block_hashes"]]
    assert mine == first["block_hashes"][::-1]


def test_a_cleared_cache_is_told_of_before_the_next_block(gqa: CachingEngine) -> None:
    prompt = gqa.engine.prompt(gqa.engine.block_size + 1)
    served(gqa, prompt)
    before = stored(gqa)
    assert gqa.engine.client.post("/reset_prefix_cache").json() == {"success": True}
    served(gqa, prompt)
    cleared, again = gqa.events.next().events
    assert cleared == {"type": "AllBlocksCleared"}
    assert again["block_hashes"] == before["block_hashes"], "the same process, the same tokens, the same hash"


def test_batches_are_numbered_from_0_without_a_gap(gqa: CachingEngine) -> None:
    served(gqa, gqa.engine.prompt(gqa.engine.block_size + 1))
    last = gqa.events.next()
    batches, _ = gqa.events.replay(0)
    assert [batch.seq for batch in batches] == list(range(last.seq + 1))
    assert batches[-1] == last


def test_a_replay_begins_where_it_is_asked_to_and_says_its_end(gqa: CachingEngine) -> None:
    for _ in range(3):
        served(gqa, gqa.engine.prompt(gqa.engine.block_size + 1))
    published = [gqa.events.next() for _ in range(3)]
    batches, end = gqa.events.replay(published[1].seq)
    assert batches == published[1:]
    assert end == [b"", KvEvents.END, b""]
    assert gqa.events.replay(published[-1].seq + 1) == ([], end), "what is not published yet is not waited for"
