"""The tokenizer of tiny-r1: a small byte-level BPE with DeepSeek-R1's special tokens and chat template.

    python models/tiny-r1/tokenizer.py          trains on the generated chats and writes the two files to checkpoint/

Any UTF-8 text round-trips; every digit is one token; a word takes one space on either side with it, so that ` carry `
between two digits is one token. `<think>` and `</think>` are added tokens that are not special, as in DeepSeek-R1:
they stay in decoded text, where a reasoning parser finds them.

`encode_chats` writes the same token ids as the chat template does (a test holds the two together), faster.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from pathlib import Path

from chats import Chat, sample_chat
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

CHECKPOINT = Path(__file__).parent / "checkpoint"
VOCAB_SIZE = 1024
MAX_POSITIONS = 4096

# ruff: noqa: RUF001 - DeepSeek's tokens are spelt with a full-width bar
BOS, EOS, PAD = "<｜begin▁of▁sentence｜>", "<｜end▁of▁sentence｜>", "<｜▁pad▁｜>"
USER, ASSISTANT, THINK, END_THINK = "<｜User｜>", "<｜Assistant｜>", "<think>", "</think>"
SPECIAL_TOKENS = (BOS, EOS, PAD)
MARKERS = (USER, ASSISTANT, THINK, END_THINK)

PIECES = r"\p{N}| ?[\p{L}\p{M}']+ ?| ?[^\s\p{L}\p{M}\p{N}']+ ?|\n+|\s"

CHAT_TEMPLATE = (
    "{%- set system = namespace(text='') -%}"
    "{%- for message in messages if message['role'] == 'system' -%}"
    "{%- set system.text = system.text + ('\\n\\n' if system.text else '') + message['content'] -%}"
    "{%- endfor -%}"
    "{{- bos_token + system.text -}}"
    "{%- for message in messages -%}"
    "{%- if message['role'] == 'user' -%}"
    f"{{{{- '{USER}' + message['content'] -}}}}"
    "{%- elif message['role'] == 'assistant' -%}"
    f"{{{{- '{ASSISTANT}' + (message['content'] or '').split('{END_THINK}')[-1] + eos_token -}}}}"
    "{%- elif message['role'] != 'system' -%}"
    "{{- raise_exception('tiny-r1 knows the roles system, user and assistant, not ' + message['role']) -}}"
    "{%- endif -%}"
    "{%- endfor -%}"
    f"{{%- if add_generation_prompt -%}}{{{{- '{ASSISTANT}{THINK}\\n' -}}}}{{%- endif -%}}"
)

CONFIG = {
    "tokenizer_class": "PreTrainedTokenizerFast",
    "bos_token": BOS,
    "eos_token": EOS,
    "pad_token": PAD,
    "add_bos_token": True,
    "add_eos_token": False,
    "clean_up_tokenization_spaces": False,
    "model_max_length": MAX_POSITIONS,
    "chat_template": CHAT_TEMPLATE,
}


def train_tokenizer(seed: int = 0, num_chats: int = 60_000) -> Tokenizer:
    """A byte-level BPE fitted to generated chats; the same for the same seed."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(PIECES), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE,
        special_tokens=[AddedToken(token, normalized=False) for token in (*SPECIAL_TOKENS, *MARKERS)],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_texts(random.Random(seed), num_chats), trainer)
    tokenizer.post_processor = processors.TemplateProcessing(
        single=f"{BOS} $A", pair=f"{BOS} $A $B", special_tokens=[(BOS, tokenizer.token_to_id(BOS))]
    )
    return tokenizer


def save_tokenizer(tokenizer: Tokenizer, folder: Path) -> None:
    """Write tokenizer.json, in which the markers are not special, and tokenizer_config.json."""
    folder.mkdir(parents=True, exist_ok=True)
    document = json.loads(tokenizer.to_str())
    for token in document["added_tokens"]:
        token["special"] = token["content"] in SPECIAL_TOKENS
    (folder / "tokenizer.json").write_text(json.dumps(document, ensure_ascii=False, indent=1) + "\n")
    (folder / "tokenizer_config.json").write_text(json.dumps(CONFIG, ensure_ascii=False, indent=2) + "\n")


def load_tokenizer(folder: Path = CHECKPOINT) -> Tokenizer:
    """The bare tokenizer of a checkpoint folder."""
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


def encode_chats(
    tokenizer: Tokenizer, chats: list[Chat], max_tokens: int, rng: random.Random
) -> list[tuple[list[int], int]]:
    """Token ids of each chat and how many of them are prompt; the oldest turns go where a chat is too long.

    Half of the chats keep the two newlines that a client sends back if it does not strip a reply.
    """
    texts: list[str] = []
    for chat in chats:
        gap = rng.choice(("", "\n\n"))
        texts.append(chat.system)
        for turn in chat.turns[:-1]:
            texts += (f"{USER}{turn.user}", f"{ASSISTANT}{gap}{turn.reply}{EOS}")
        last = chat.turns[-1]
        texts += (f"{USER}{last.user}{ASSISTANT}{THINK}\n", f"{last.thought}\n{END_THINK}\n\n{last.reply}{EOS}")
    encodings = iter([encoding.ids for encoding in tokenizer.encode_batch_fast(texts, add_special_tokens=False)])
    bos: int = tokenizer.token_to_id(BOS)  # type: ignore[assignment]
    return [_join(bos, encodings, len(chat.turns), max_tokens) for chat in chats]


def _join(bos: int, encodings: Iterator[list[int]], num_turns: int, max_tokens: int) -> tuple[list[int], int]:
    system = next(encodings)
    turns = [next(encodings) + next(encodings) for _ in range(num_turns - 1)]
    question, answer = next(encodings), next(encodings)
    room = max_tokens - 1 - len(question) - len(answer)
    if len(system) > room:
        system = []
    kept: list[int] = []
    for turn in reversed(turns):
        if len(turn) + len(kept) + len(system) > room:
            break
        kept = turn + kept
    prompt = [bos, *system, *kept, *question]
    return (prompt + answer)[:max_tokens], len(prompt)


def _texts(rng: random.Random, num_chats: int) -> Iterator[str]:
    for _ in range(num_chats):
        chat = sample_chat(rng, 1)
        turn = chat.turns[0]
        yield from (chat.system, turn.user, turn.thought, "\n\n", turn.reply)


if __name__ == "__main__":
    save_tokenizer(train_tokenizer(), CHECKPOINT)
