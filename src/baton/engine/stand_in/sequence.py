"""One generation on one rank: what is asked, how far it has come, and what its KV says."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from baton.engine.stand_in.faults import Faults
from baton.engine.stand_in.model import END_OF_ANSWER, TOKEN_BYTES, Token, digest, kv_chain, packed, token_of


class Finish(StrEnum):
    """Why a generation ended, in vLLM's words."""

    LENGTH = "length"
    STOP = "stop"
    ABORT = "abort"
    ERROR = "error"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How tokens are drawn and when to end.

    salt   what the sampler adds: the seed, or 0; None is greedy
    """

    max_tokens: int
    min_tokens: int = 0
    ignore_eos: bool = False
    stops: tuple[str, ...] = ()
    salt: int | None = None
    ends_every: int = 0
    """an answer ends by itself where prompt and answer are a multiple of so many tokens; 0: never"""


class Sequence:
    """One generation.

    ids             token ids of prompt and answer
    chain, hashes   contents, and names in the prefix cache, of the whole blocks of `ids`, computed or not
    taint           what KV that was read differs by from what these weights make of these tokens; 0: right
    heard           called after each new token and at the end
    """

    __slots__ = (
        "_raw", "arrived_s", "blocks", "cache_salt", "chain", "decoded_s", "faults", "fetched", "finish", "first_s",
        "hashes", "heard", "ids", "num_cached", "num_computed", "num_external", "num_prompt", "offer", "output",
        "params", "request_id", "sampling", "scheduled_s", "stop_reason", "taint", "text", "weights_seed",
    )  # fmt: skip

    def __init__(
        self,
        request_id: str,
        prompt: list[int],
        sampling: Sampling,
        *,
        params: dict[str, Any],
        faults: Faults,
        weights_seed: int,
        cache_salt: str,
        block_size: int,
        arrived_s: float,
        heard: Callable[[], None],
    ) -> None:
        self.request_id = request_id
        self.ids = list(prompt)
        self.num_prompt = len(prompt)
        self.sampling = sampling
        self.params = params
        self.faults = faults
        self.weights_seed = weights_seed
        self.cache_salt = cache_salt
        self.heard = heard
        self.arrived_s = arrived_s
        self.scheduled_s = self.first_s = self.decoded_s = 0.0
        self._raw = bytearray(packed(prompt))
        self.chain = kv_chain(weights_seed, self._raw, block_size)
        self.hashes: list[int] = []
        self.blocks: list[int] = []
        self.num_computed = self.num_cached = self.num_external = 0
        self.fetched = False
        self.taint = 0
        self.output: list[Token] = []
        self.text = ""
        self.finish: Finish | None = None
        self.stop_reason: str | None = None
        self.offer: dict[str, Any] | None = None

    def hash_blocks(self, seed: int, block_size: int) -> None:
        """Name the whole blocks that have no name in the prefix cache yet."""
        begin = len(self.hashes)
        if len(self.ids) // block_size > begin:
            seed = self.hashes[-1] if begin else seed
            self.hashes += kv_chain(seed, self._raw[begin * block_size * TOKEN_BYTES :], block_size)

    def content(self, block: int, num_tokens: int, block_size: int) -> int:
        """What these weights make of a block of the sequence when `num_tokens` of all its tokens are computed."""
        end = min(num_tokens, (block + 1) * block_size)
        if end == (block + 1) * block_size:
            return self.chain[block]
        before = self.chain[block - 1] if block else self.weights_seed
        return digest(self._raw[block * block_size * TOKEN_BYTES : end * TOKEN_BYTES], before)

    def read(self, contents: list[int], block_size: int) -> None:
        """Take note of KV, from the first block on, that was computed elsewhere or before."""
        for block, content in enumerate(contents):
            if wrong := content ^ self.content(block, len(self.ids), block_size):
                self.taint = digest(packed([wrong & 0xFFFFFFFF, wrong >> 32]), self.taint)

    def next_token(self, block_size: int) -> None:
        """Draw a token from all that is computed, and see whether the answer ends with it."""
        state = self.content((len(self.ids) - 1) // block_size, len(self.ids), block_size) ^ self.taint
        sampling = self.sampling
        token = token_of(state if sampling.salt is None else digest(packed([sampling.salt & 0xFFFFFFFF]), state))
        num_output = len(self.output) + 1
        may_stop = num_output >= sampling.min_tokens
        if (
            may_stop
            and not sampling.ignore_eos
            and sampling.ends_every
            and not (len(self.ids) + 1) % sampling.ends_every
        ):
            token = Token(END_OF_ANSWER, token.logprob, token.other_id, token.other_logprob)
            self.finish = Finish.STOP
        else:
            self.text += chr(token.id)
        self.ids.append(token.id)
        self._raw += packed([token.id])
        self.output.append(token)
        if len(self.ids) % block_size == 0:
            before = self.chain[-1] if self.chain else self.weights_seed
            self.chain.append(digest(self._raw[-block_size * TOKEN_BYTES :], before))
        if may_stop and self.finish is None and sampling.stops:
            self._look_for_stops()
        if self.finish is None and num_output >= sampling.max_tokens:
            self.finish = Finish.LENGTH

    def _look_for_stops(self) -> None:
        found = [(self.text.find(stop), stop) for stop in self.sampling.stops if stop in self.text]
        if found:
            at, self.stop_reason = min(found)
            self.text = self.text[:at]
            self.finish = Finish.STOP
