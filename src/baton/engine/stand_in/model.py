"""The "model" of a stand-in: what it answers is a pure function of its weights' name and the KV that it reads.

One token is one byte of text. A KV block's contents are a digest of the weights that computed it and of all tokens up
to its end, as attention makes it. The next token follows from the contents of the blocks so far. So another prompt's
KV, or other weights', gives other tokens, and nothing tells; and an answer can be continued from its own token ids.
"""

from __future__ import annotations

import json
from array import array
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from xxhash import xxh3_64_intdigest

ALPHABET = "abcdefghijklmnopqrstuvwxyz"
END_OF_ANSWER = 256
"""The token that ends an answer; it has no text."""
TOKEN_BYTES = 4


@dataclass(frozen=True, slots=True)
class Token:
    """One output token, its log-probability, and the second best."""

    id: int
    logprob: float
    other_id: int
    other_logprob: float


def tokenize(text: str) -> list[int]:
    """Token ids of a text: its bytes."""
    return list(text.encode())


def detokenize(ids: Sequence[int]) -> str:
    """Text of token ids; ids that are no byte stand for one all the same, the end of an answer for nothing."""
    return bytes(i % 256 for i in ids if i != END_OF_ANSWER).decode(errors="replace")


def chat_prompt(body: dict[str, Any]) -> list[int]:
    """What a chat template makes of a chat request: its tools, its messages, an opening for the answer."""
    said = [f"<|{message.get('role')}|>{json.dumps(message.get('content'))}" for message in body["messages"]]
    tools = [json.dumps(body["tools"])] if body.get("tools") else []
    return tokenize("".join([*tools, *said, "<|assistant|>"]))


def digest(raw: bytes | bytearray, seed: int) -> int:
    """64 bits of bytes, after 64 bits of all before them."""
    return xxh3_64_intdigest(raw, seed)


def seed_of(text: str) -> int:
    """64 bits of a name: the weights', a salt's."""
    return xxh3_64_intdigest(text.encode())


def packed(ids: Sequence[int]) -> bytes:
    """Token ids as the bytes that are digested; ids must fit 32 bits."""
    return array("I", ids).tobytes()


def kv_chain(seed: int, raw: bytes | bytearray, block_size: int) -> list[int]:
    """Contents of the whole KV blocks of packed tokens, each over all before it."""
    size = block_size * TOKEN_BYTES
    chain: list[int] = []
    for start in range(0, len(raw) - size + 1, size):
        seed = digest(raw[start : start + size], seed)
        chain.append(seed)
    return chain


def token_of(state: int) -> Token:
    """The likeliest token of a state, with log-probabilities."""
    best = state % len(ALPHABET)
    logprob = -0.1 - (state >> 8 & 0xFF) / 256
    return Token(
        id=ord(ALPHABET[best]),
        logprob=logprob,
        other_id=ord(ALPHABET[(best + 1) % len(ALPHABET)]),
        other_logprob=logprob - 0.6 - (state >> 16 & 0xFF) / 256,
    )
