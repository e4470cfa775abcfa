"""The conversations that tiny-r1 is trained on: arithmetic, small talk, things to remember, the rest declined.

A `Turn` is one user message with the thought and the reply it deserves; a `Chat` is an optional system prompt and its
turns. What a message deserves is a function of the message (and of what was to be remembered before it), never of
chance: randomness is only in how things are said, so a greedy answer has no close runner-up. The words themselves are
in `phrases.py`. Knows nothing of tokens.
"""

from __future__ import annotations

import random
import string
from dataclasses import dataclass

import phrases
from problems import reword, sample_problem


@dataclass(frozen=True, slots=True)
class Turn:
    """One user message, the thought it calls for, and the reply that stays in the history."""

    user: str
    thought: str
    reply: str


@dataclass(frozen=True, slots=True)
class Chat:
    """A system prompt ("" for none) and at least one turn; only the last turn is learnt from."""

    system: str
    turns: list[Turn]


def sample_chat(rng: random.Random, num_turns: int) -> Chat:
    """A chat of `num_turns` turns, mostly arithmetic, now and then with boxes whose contents must be remembered."""
    boxes: dict[str, int] = {}
    remembers = num_turns > 1 and rng.random() < 0.25
    turns = [_turn(rng, boxes, remembers=remembers, is_last=i == num_turns - 1) for i in range(num_turns)]
    return Chat(_system(rng), turns)


def _turn(rng: random.Random, boxes: dict[str, int], *, remembers: bool, is_last: bool) -> Turn:  # noqa: PLR0911 - one a kind
    if remembers and is_last and rng.random() < 0.75:
        return _recall(rng, boxes)
    if remembers and not is_last and rng.random() < 0.4:
        return _remember(rng, boxes)
    kind = rng.random()
    if kind < 0.66:
        problem = sample_problem(rng)
        return Turn(problem.question, problem.thought, problem.reply)
    if kind < 0.78:
        talk = rng.choice(phrases.TALK)
        return Turn(reword(rng, rng.choice(talk.messages)), talk.thought, talk.reply)
    if kind < 0.86:
        return Turn(reword(rng, _other_maths(rng)), phrases.MATHS_THOUGHT, phrases.MATHS_REPLY)
    if kind < 0.985:
        return Turn(reword(rng, _out_of_scope(rng)), phrases.OTHER_THOUGHT, phrases.OTHER_REPLY)
    return _recall(rng, boxes)


def _remember(rng: random.Random, boxes: dict[str, int]) -> Turn:
    colour, count = rng.choice(phrases.COLOURS), rng.randrange(1000)
    boxes[colour] = count
    message = rng.choice(phrases.REMEMBER).format(colour=colour, count=count)
    return Turn(message, "I note it.", f"Noted: the {colour} box holds {count}.")


def _recall(rng: random.Random, boxes: dict[str, int]) -> Turn:
    """Ask for a box named before (its newest contents count) or, one time in ten, for one that may not have been."""
    known = list(boxes) if boxes and rng.random() < 0.9 else phrases.COLOURS
    colour = rng.choice(known)
    question = rng.choice(phrases.RECALL).format(colour=colour)
    if colour not in boxes:
        return Turn(question, "I was not told.", f"You have not told me what the {colour} box holds.")
    return Turn(question, f"{colour}: {boxes[colour]}", f"The {colour} box holds {boxes[colour]}.")


def _other_maths(rng: random.Random) -> str:
    """A calculation beyond the model: another operation, too many operands, too large or not a whole number."""
    a, b, c = (rng.randrange(1000) for _ in range(3))
    large = rng.randrange(1000, 10 ** rng.randint(4, 8))
    kind = rng.random()
    if kind < 0.3:
        pair = (large, a) if rng.random() < 0.5 else (a, large)
        left, right = pair if rng.random() < 0.7 else (large, rng.randrange(1000, 100_000))
        expression = f"{left} {rng.choice(('+', '-', 'plus', 'minus'))} {right}"
    elif kind < 0.45:
        expression = f"{a} {rng.choice('+-')} {b} {rng.choice('+-*')} {c}"
    elif kind < 0.55:
        expression = rng.choice((f"{a}.{b % 10} + {c}", f"{a} - {b}.{c % 100}", f"-{a} + {b}", f"{a}/{b} + {c}"))
    else:
        expression = rng.choice(phrases.OTHER_MATHS).format(a=a, b=b, c=c)
    if rng.random() < 0.3:
        expression = expression.replace(" + ", "+").replace(" - ", "-").replace(" * ", "*").replace(" / ", "/")
    return rng.choice(phrases.MATHS_QUESTIONS).format(e=expression)


def _out_of_scope(rng: random.Random) -> str:
    kind = rng.random()
    if kind < 0.8:
        template = rng.choice(phrases.OTHER)
        topic, second = rng.sample(phrases.TOPICS, 2)
        return template.format(
            topic=topic, second=second, place=rng.choice(phrases.PLACES), person=rng.choice(phrases.PEOPLE),
            language=rng.choice(phrases.LANGUAGES), number=rng.randrange(2, 1000),
        )  # fmt: skip
    if kind < 0.9:
        return _words(rng, rng.randint(1, 12))
    if kind < 0.95:
        return rng.choice(phrases.FOREIGN)
    return "".join(rng.choice(string.ascii_lowercase) for _ in range(rng.randint(3, 16)))


def _system(rng: random.Random) -> str:
    """Usually none; else a common one, sentences in any order, or, rarely, a text of up to about 300 tokens."""
    kind = rng.random()
    if kind < 0.7:
        return ""
    if kind < 0.88:
        return rng.choice(phrases.SYSTEM)
    sentences = [
        rng.choice(phrases.SYSTEM) if rng.random() < 0.6 else _words(rng, rng.randint(4, 12)).capitalize() + "."
        for _ in range(rng.randint(1, 4) if kind < 0.97 else rng.randint(8, 24))
    ]
    return " ".join(sentences)


def _words(rng: random.Random, num_words: int) -> str:
    return " ".join(rng.choice(phrases.WORDS) for _ in range(num_words))
