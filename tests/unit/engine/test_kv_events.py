"""Both encodings of KV events, what is passed over, and what is refused."""

import contextlib
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from baton.engine.kv_events import (
    AllBlocksCleared,
    BlockRemoved,
    BlockStored,
    EventsGarbled,
    KvEventDecoder,
    block_key,
    here,
    stored_blocks,
)

STORED = ("block_hashes", "parent_block_hash", "token_ids", "block_size", "lora_id", "medium", "lora_name",
          "extra_keys", "group_idx", "kv_cache_spec_kind", "kv_cache_spec_sliding_window", "locality", "ownership",
          "session_id")  # fmt: skip
REMOVED = ("block_hashes", "medium", "group_idx", "locality", "ownership")

hashes = st.one_of(st.integers(0, 2**64 - 1), st.binary(min_size=32, max_size=32))
words = st.none() | st.text(max_size=8)
stored_values = st.tuples(
    st.lists(hashes, max_size=5),
    st.none() | hashes,
    st.lists(st.integers(0, 2**31), max_size=40),
    st.integers(1, 256),
    st.none() | st.integers(0, 100),
    words,
    words,
    st.none() | st.lists(st.none() | st.lists(st.text(max_size=4), min_size=1, max_size=2), max_size=5),
    st.none() | st.integers(0, 4),
    words,
    st.none() | st.integers(1, 4096),
    words,
    words,
    words,
)
removed_values = st.tuples(st.lists(hashes, max_size=5), words, st.none() | st.integers(0, 4), words, words)
events = st.lists(
    st.one_of(
        st.tuples(st.just("BlockStored"), stored_values, st.integers(7, len(STORED))),
        st.tuples(st.just("BlockRemoved"), removed_values, st.integers(2, len(REMOVED))),
        st.tuples(st.just("AllBlocksCleared"), st.just(()), st.just(0)),
    ),
    max_size=6,
)
KINDS: dict[str, Any] = {
    "BlockStored": (BlockStored, STORED),
    "BlockRemoved": (BlockRemoved, REMOVED),
    "AllBlocksCleared": (AllBlocksCleared, ()),
}


def payload(*wire: Any, time_s: float = 1.5, rank: Any = 0) -> bytes:
    return msgspec.msgpack.encode([time_s, list(wire), rank])


@given(events, st.booleans(), st.none() | st.integers(0, 64))
def test_both_encodings_of_any_release_say_the_same(told: Any, maps: bool, rank: int | None) -> None:
    wire: list[Any] = []
    for name, values, known in told:  # a release knows the first `known` fields
        fields = KINDS[name][1][:known]
        wire.append({"type": name, **dict(zip(fields, values, strict=False))} if maps else [name, *values[:known]])
    decoder = KvEventDecoder()
    batch = decoder.decode(payload(*wire, rank=rank))
    assert (batch.time_s, batch.dp_rank) == (1.5, rank)
    assert len(batch.events) == len(told)
    for event, (name, values, known) in zip(batch.events, told, strict=True):
        kind, fields = KINDS[name]
        assert isinstance(event, kind)
        assert tuple(getattr(event, field) for field in fields[:known]) == values[:known]
        assert all(getattr(event, field) is None for field in fields[known:])
    assert (decoder.num_unknown, decoder.num_extra_fields) == (0, 0)


def test_unknown_kinds_and_fields_are_passed_over_and_counted() -> None:
    decoder = KvEventDecoder()
    batch = decoder.decode(
        payload(
            {"type": "BlockMoved", "block_hashes": [1]},
            ["BlockMoved", [1]],
            {"type": "BlockRemoved", "block_hashes": [1], "weight": 2, "colour": "red"},
            ["BlockRemoved", [2], "GPU", 0, None, None, "more"],
            {"type": "AllBlocksCleared", "why": "reset"},
        )
    )
    assert [event.block_hashes for event in batch.events if isinstance(event, BlockRemoved)] == [[1], [2]]
    assert (decoder.num_unknown, decoder.num_extra_fields) == (2, 4)


def test_the_omitted_rank_of_a_batch_is_unknown() -> None:
    assert KvEventDecoder().decode(msgspec.msgpack.encode([1.0, []])).dp_rank is None


@pytest.mark.parametrize(
    "wire",
    [
        {"type": "BlockStored", "block_hashes": [1]},
        {"type": "BlockRemoved", "block_hashes": "x"},
        {"type": 7},
        {"block_hashes": [1]},
        ["BlockStored", [1]],
        [],
        3,
        {"type": "BlockStored", "block_hashes": [1], "parent_block_hash": None, "token_ids": [2**63], "block_size": 1},
    ],
)
def test_an_event_that_makes_no_sense_condemns_its_batch(wire: Any) -> None:
    with pytest.raises(EventsGarbled):
        KvEventDecoder().decode(payload(["AllBlocksCleared"], wire))


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(junk: bytes) -> None:
    decoder = KvEventDecoder()
    with contextlib.suppress(EventsGarbled):
        assert isinstance(decoder.decode(junk).events, list)


@given(st.integers(0, 200))
def test_a_cut_payload_is_refused(cut: int) -> None:
    whole = payload(["BlockStored", [1, 2], None, [1, 2, 3, 4], 2, None, "GPU"])
    if cut < len(whole):
        with pytest.raises(EventsGarbled):
            KvEventDecoder().decode(whole[:cut])


def stored(**more: Any) -> BlockStored:
    return BlockStored(**{"block_hashes": [1, 2], "parent_block_hash": None, "token_ids": [5, 6, 7, 8], "block_size": 2, **more})  # fmt: skip # noqa: E501


def test_only_the_ranks_own_memory_counts() -> None:
    assert here(stored(medium="GPU"))
    assert here(stored())
    assert here(BlockRemoved([1], locality="LOCAL"))
    assert not here(stored(medium="CPU"))
    assert not here(stored(medium="GPU", locality="REMOTE"))


def test_caches_that_do_not_keep_whole_prompts_are_left_out() -> None:
    assert stored_blocks(stored(kv_cache_spec_kind="mla_attention")) is not None
    assert stored_blocks(stored(kv_cache_spec_kind="sliding_window")) is None
    assert stored_blocks(stored(kv_cache_spec_kind="full_attention", kv_cache_spec_sliding_window=128)) is None


def test_keys_are_one_a_block_and_an_old_releases_adapter_is_one() -> None:
    def keys(event: BlockStored) -> list[bytes]:
        blocks = stored_blocks(event)
        assert blocks is not None
        return list(blocks.keys)

    assert keys(stored(extra_keys=[None, None])) == []
    assert keys(stored(extra_keys=[["salt"], None])) == [block_key(["salt"]), b""]
    assert keys(stored(lora_name="a")) == [block_key(["a"])] * 2
    assert keys(stored(lora_id=3)) == [block_key([3])] * 2
    assert keys(stored(lora_name="a", extra_keys=[["a"], ["a"]])) == keys(stored(lora_name="a"))
