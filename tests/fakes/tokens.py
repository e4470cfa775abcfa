"""A "model" for fakes: what it answers is a pure function of its weights' name and the KV it reads.

One token is one byte of text. A KV block's contents are a digest of the weights that computed it and of all tokens up
to its end, as attention makes it; so another prompt's KV, or other weights' KV, gives other tokens, and nothing tells.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

ALPHABET = "abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True)
class Token:
    """One output token, its log-probability, and the second best."""

    id: int
    logprob: float
    other_id: int
    other_logprob: float


def tokenize(text: str) -> list[int]:
    return list(text.encode())


def detokenize(ids: Sequence[int]) -> str:
    return bytes(i % 256 for i in ids).decode(errors="replace")


def chat_prompt(body: dict[str, Any]) -> list[int]:
    """What a chat template makes of a chat request: its tools, its messages, an opening for the answer."""
    said = [f"<|{message.get('role')}|>{json.dumps(message.get('content'))}" for message in body["messages"]]
    tools = [json.dumps(body["tools"])] if body.get("tools") else []
    return tokenize("".join([*tools, *said, "<|assistant|>"]))


def kv_of(weights: str, prompt: Sequence[int], block_size: int) -> list[str]:
    """Contents of the KV blocks of a prompt."""
    blocks: list[str] = []
    before = weights
    for start in range(0, len(prompt), block_size):
        before = _digest(before, *prompt[start : start + block_size]).hex()
        blocks.append(before)
    return blocks


def generate(weights: str, kv: Sequence[str], salt: int | None, num_tokens: int) -> list[Token]:
    """The answer of a model that reads `kv`; `salt` is the seed where it samples, None where it is greedy."""
    state = _digest(weights, *kv, salt)
    tokens = []
    for _ in range(num_tokens):
        state = _digest(state.hex())
        best = state[0] % len(ALPHABET)
        logprob = -0.1 - state[1] / 256
        tokens.append(
            Token(
                id=ord(ALPHABET[best]),
                logprob=logprob,
                other_id=ord(ALPHABET[(best + 1) % len(ALPHABET)]),
                other_logprob=logprob - 0.6 - state[2] / 256,
            )
        )
    return tokens


def _digest(*parts: object) -> bytes:
    return hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
