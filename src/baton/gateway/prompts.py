"""What routing is told of a prompt: its blocks and its length in tokens, of which only the bytes are known for certain.

A prompt's text is not tokenized here. The ratio of tokens to bytes is learnt from what prefill ranks report; a
conversation's JSON, roles and brackets included, counts as text.
"""

from __future__ import annotations

from baton.gateway.openai import Body, Call, prompt_text
from baton.policy.prompt import text_chain
from baton.policy.routing import Ask

_FIRST_TOKENS_PER_BYTE = 0.25
"""English in a vocabulary of 128K: four letters a token (OpenAI's rule of thumb)."""
_WEIGHT = 0.05
"""of one prompt in the moving average: about the last twenty decide"""


class Prompts:
    """Makes an Ask of every single generation; `block_bytes` of text are one block of the router's prefix index."""

    def __init__(self, block_bytes: int = 512) -> None:
        self.block_bytes = block_bytes
        self.tokens_per_byte = _FIRST_TOKENS_PER_BYTE

    async def asks(self, call: Call, session: str) -> list[tuple[Ask, int]]:
        """What to ask of the router for each generation of a call, and the bytes of its prompt; never waits here."""
        return [self.ask(call, single, session) for single in call.singles]

    def ask(self, call: Call, single: Body, session: str) -> tuple[Ask, int]:
        """What to ask of the router for one generation, and the bytes of its prompt."""
        seed, text = prompt_text(call.path, single)
        num_bytes = len(text)
        chain = text_chain(seed, text, self.block_bytes) if num_bytes > self.block_bytes else ()
        ask = Ask(
            num_prompt_tokens=int(num_bytes * self.tokens_per_byte) + 1,
            max_output_tokens=call.max_tokens,
            chain=chain,
            tokens_per_block=self.block_bytes * self.tokens_per_byte,
            session=session,
            decode_alone=bool(call.decode_alone),
        )
        return ask, num_bytes

    def learn(self, num_bytes: int, num_tokens: int) -> None:
        """A prefill rank has counted the tokens of a prompt."""
        if num_bytes >= 64 and num_tokens > 0:  # short ones are mostly template
            self.tokens_per_byte += _WEIGHT * (min(num_tokens / num_bytes, 2.0) - self.tokens_per_byte)
