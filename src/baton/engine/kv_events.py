"""What one message of vLLM's KV events says.

A message's payload is msgpack of [time, events, data-parallel rank]. An event is a map with its name under "type" since
0.24, an array behind its name before; fields were appended over the releases, and a release leaves out what it has no
value for. Fields that are not known here are passed over.
Source: vLLM 0.11.0 to 0.32.0, distributed/kv_events.py.
"""

from __future__ import annotations

from typing import Annotated, Any, TypeAlias

import msgspec

from baton.base.errors import WorkerError
from baton.policy.exact_prefixes import StoredBlocks

TokenId: TypeAlias = Annotated[int, msgspec.Meta(ge=-(1 << 63), le=(1 << 63) - 1)]
"""As the prefix index packs it."""


class BlockStored(msgspec.Struct, tag="BlockStored"):
    """Blocks are in a cache: see vLLM for what the fields mean; `medium` "GPU" or None is the rank's own memory."""

    block_hashes: list[int | bytes]
    parent_block_hash: int | bytes | None
    token_ids: list[TokenId]
    block_size: int
    lora_id: int | None = None
    medium: str | None = None
    lora_name: str | None = None
    extra_keys: list[Any] | None = None
    group_idx: int | None = None
    kv_cache_spec_kind: str | None = None
    kv_cache_spec_sliding_window: int | None = None
    locality: str | None = None
    ownership: str | None = None
    session_id: str | None = None


class BlockRemoved(msgspec.Struct, tag="BlockRemoved"):
    """Blocks are in a cache no more."""

    block_hashes: list[int | bytes]
    medium: str | None = None
    group_idx: int | None = None
    locality: str | None = None
    ownership: str | None = None


class AllBlocksCleared(msgspec.Struct, tag="AllBlocksCleared"):
    """The cache is empty."""


class _StoredArray(BlockStored, tag="BlockStored", array_like=True):
    pass


class _RemovedArray(BlockRemoved, tag="BlockRemoved", array_like=True):
    pass


class _ClearedArray(AllBlocksCleared, tag="AllBlocksCleared", array_like=True):
    pass


KvEvent: TypeAlias = BlockStored | BlockRemoved | AllBlocksCleared


class KvEventBatch(msgspec.Struct, kw_only=True):
    """One message: the events in their order; `time_s` is Unix time at the engine."""

    time_s: float
    events: list[KvEvent]
    dp_rank: int | None


class EventsGarbled(WorkerError):
    """A message cannot be read: what it told is not known, so nothing of that rank is known for certain."""


class _Envelope(msgspec.Struct, array_like=True):
    ts: float
    events: list[msgspec.Raw]
    data_parallel_rank: int | None = None


_KINDS = {kind.__name__: kind.__struct_fields__ for kind in (BlockStored, BlockRemoved, AllBlocksCleared)}
"""Fields of every kind of event, in the order of the arrays."""


class KvEventDecoder:
    """Reads payloads of both encodings; counts what it passes over.

    num_unknown        events of kinds that are not known here
    num_extra_fields   fields that are not known here
    """

    def __init__(self) -> None:
        self.num_unknown = 0
        self.num_extra_fields = 0
        self._envelope = msgspec.msgpack.Decoder(_Envelope)
        self._map = msgspec.msgpack.Decoder(BlockStored | BlockRemoved | AllBlocksCleared)
        self._array = msgspec.msgpack.Decoder(_StoredArray | _RemovedArray | _ClearedArray)
        self._map_fields = msgspec.msgpack.Decoder(dict[str, msgspec.Raw])
        self._array_fields = msgspec.msgpack.Decoder(list[msgspec.Raw])

    def decode(self, payload: bytes) -> KvEventBatch:
        """Read one payload.

        Raises   EventsGarbled when any part of it cannot be read
        """
        try:
            envelope = self._envelope.decode(payload)
            events = [event for raw in envelope.events if (event := self._event(raw)) is not None]
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
            raise EventsGarbled(
                f"{len(payload)} bytes of KV events cannot be read: {error}; expected vLLM's msgpack of [time, events, "
                "rank]"
            ) from error
        return KvEventBatch(time_s=envelope.ts, events=events, dp_rank=envelope.data_parallel_rank)

    def _event(self, raw: msgspec.Raw) -> KvEvent | None:
        first = bytes(memoryview(raw)[:1])
        event: KvEvent
        if b"\x80" <= first <= b"\x8f" or first in (b"\xde", b"\xdf"):
            named = self._map_fields.decode(raw)
            known = self._known(named.get("type"))
            if known is None:
                return None
            self.num_extra_fields += len(named.keys() - known) - 1
            event = self._map.decode(raw)
        else:
            values = self._array_fields.decode(raw)
            known = self._known(values[0] if values else None)
            if known is None:
                return None
            self.num_extra_fields += max(0, len(values) - 1 - len(known))
            event = self._array.decode(raw)
        return event

    def _known(self, name: msgspec.Raw | None) -> tuple[str, ...] | None:
        """Fields of an event of this name; None for a name that is not known here."""
        kind = None if name is None else msgspec.msgpack.decode(name)
        if not isinstance(kind, str):
            raise msgspec.ValidationError(f"an event without a name: {kind!r:.80}")
        if kind not in _KINDS:
            self.num_unknown += 1
            return None
        return _KINDS[kind]


_WINDOWED = frozenset(
    ("sliding_window", "sliding_window_mla", "mamba", "chunked_local_attention", "encoder_only_attention",
     "cross_attention")
)  # fmt: skip
"""Kinds of cache that do not keep whole prompts (vLLM, v1/kv_cache_interface.py)."""


def here(event: BlockStored | BlockRemoved) -> bool:
    """Whether an event is of the rank's own memory: neither of another host nor of a slower tier."""
    return event.medium in (None, "GPU") and event.locality in (None, "LOCAL")


def stored_blocks(event: BlockStored) -> StoredBlocks | None:
    """What the prefix index is told of an event; None for a cache that does not keep whole prompts."""
    if event.kv_cache_spec_kind in _WINDOWED or event.kv_cache_spec_sliding_window is not None:
        return None
    keys: list[bytes] = []
    if event.extra_keys is not None:
        if any(event.extra_keys):
            keys = [block_key(key) for key in event.extra_keys]
    elif event.lora_name is not None or event.lora_id is not None:  # before 0.17 nothing else is told of keys
        keys = [block_key([event.lora_name or event.lora_id])] * len(event.block_hashes)
    return StoredBlocks(
        hashes=event.block_hashes,
        parent=event.parent_block_hash,
        token_ids=event.token_ids,
        block_size=event.block_size,
        keys=keys,
        group=event.group_idx,
    )


def block_key(extra_keys: list[Any] | None) -> bytes:
    """What one block's extra keys, such as a request's `cache_salt`, are to the prefix index."""
    return msgspec.msgpack.encode(extra_keys) if extra_keys else b""
