"""The arithmetic that tiny-r1 can do: problems, their worked columns, and which of them are held out.

A problem is `a + b` or `a - b` with both operands in [0, 999]. The thought works it column by column, ones first, with
the carry or borrow written out; the reply states the equation:

    347 + 586      7+6=13 carry 1        187 - 532      187<532
                   4+8+1=13 carry 1                     12-7=5 borrow 1
                   3+5+1=9                              13-8-1=4 borrow 1
                                                        5-1-1=3
    347 + 586 = 933                      187 - 532 = -345

Held out: one pair in ten, chosen by a hash of the operator and the unordered operands, so that no phrasing, and no
order, of a held-out pair is ever trained on. Knows nothing of models, tokens or files. Standard library only.
"""

from __future__ import annotations

import hashlib
import random
from dataclasses import dataclass

MAX_DIGITS = 3
HELD_OUT_ONE_IN = 10

EXPRESSIONS = {
    "+": (
        "{a} plus {b}",
        "the sum of {a} and {b}",
        "{a} added to {b}",
        "{a} increased by {b}",
        "the total of {a} and {b}",
    ),
    "-": (
        "{a} minus {b}",
        "the difference between {a} and {b}",
        "{b} subtracted from {a}",
        "{a} decreased by {b}",
        "{a} take away {b}",
        "{a} less {b}",
    ),
}

COMMANDS = {
    "+": (
        "Add {a} and {b}.",
        "Add {a} to {b}.",
        "Add {a} with {b}.",
        "Add up {a} and {b}.",
        "Sum {a} and {b}.",
        "If I add {a} and {b}, what do I get?",
        "What do I get when I add {a} to {b}?",
    ),
    "-": (
        "Subtract {b} from {a}.",
        "Take {b} away from {a}.",
        "Take {b} from {a}.",
        "If I subtract {b} from {a}, what do I get?",
        "What is left when I take {b} from {a}?",
    ),
}

QUESTIONS = (
    "{e}",
    "{e} =",
    "{e}=",
    "{e}=?",
    "{e} = ?",
    "{e}?",
    "{e} equals what?",
    "What is {e}?",
    "What's {e}?",
    "What does {e} equal?",
    "What do you get for {e}?",
    "What is the result of {e}?",
    "What is the value of {e}?",
    "How much is {e}?",
    "Compute {e}.",
    "Calculate {e}.",
    "Calculate: {e}",
    "Evaluate {e}.",
    "Solve {e}.",
    "Solve this: {e}",
    "Work out {e}.",
    "Find {e}.",
    "Tell me {e}.",
    "Give me {e}.",
    "Q: {e}",
    "Question: what is {e}?",
    "I need to know {e}.",
    "Can you compute {e}?",
    "Can you tell me what {e} is?",
    "Could you work out {e} for me?",
    "Do you know what {e} is?",
    "Now {e}",
    "And {e}?",
)

STORIES = {
    "+": (
        "{name} has {a} {things} and gets {b} more. How many {things} does {name} have now?",
        "{name} has {a} {things}. {other} gives {name} {b} more. How many {things} are there in all?",
        "{name} has {a} {things} and {other} has {b} {things}. How many do they have together?",
        "There are {a} {things} on the table and {b} in the bag. How many {things} are there in total?",
        "A shop had {a} {things} and bought {b} more. How many {things} does it have now?",
        "{a} people are on a train and {b} more get on. How many people are on the train?",
        "I have {a} {things} and get {b} more. How many {things} do I have?",
        "There are {a} {things} and {b} {others}. How many are there in all?",
        "{name} is {a} years old. {other} is {b} years older. How old is {other}?",
        "{name} bought {a} {things} on Monday and {b} on Tuesday. How many {things} is that?",
    ),
    "-": (
        "{name} has {a} {things} and gives away {b}. How many {things} are left?",
        "{name} had {a} {things} and lost {b} of them. How many {things} does {name} have now?",
        "A shop had {a} {things} and sold {b}. How many {things} are left?",
        "There were {a} {things} on the table and {name} took {b}. How many {things} remain?",
        "{a} people are on a train and {b} get off. How many people are on the train?",
        "{name} has {a} {things} and eats {b} of them. How many {things} are left?",
        "I have {a} {things} and spend {b}. How many do I have left?",
        "{name} had {a} {things}. {other} took {b} of them. How many are left?",
        "{name} has {a} {things} and uses {b} {things}. How many {things} are left?",
        "{name} is {a} years old. {other} is {b} years younger. How old is {other}?",
    ),
}

OPENINGS = ("Please ", "Hey, ", "Hi! ", "Hello, ", "Ok, ", "So ", "Now ", "Next: ", "Good. ", "Thanks! ", "Quick: ")
CLOSINGS = (" Thanks!", " Please.", " Think step by step.", " Show your work.", " Be careful.", "\n", "!")
NAMES = ("Tom", "Anna", "Ben", "Lisa", "Sam", "Mia", "Paul", "Emma", "Jack", "Sara", "Leo", "Nina", "Max", "Eva", "Ali")
THINGS = (
    *("apples", "books", "coins", "pens", "cards", "eggs", "stamps", "cookies", "marbles", "tickets", "balls", "cups"),
    *("dollars", "euros", "cats", "dogs", "birds", "boxes", "cars", "pages"),
)
MINUS_SIGNS = ("-", "-", "-", "-", "-", "-", "\u2212", "\u2013")


@dataclass(frozen=True, slots=True)
class Problem:
    """`a op b`, both operands in [0, 999], asked in the words of `question`."""

    op: str
    a: int
    b: int
    question: str

    @property
    def answer(self) -> int:
        """The sum or difference."""
        return self.a + self.b if self.op == "+" else self.a - self.b

    @property
    def num_digits(self) -> int:
        """Digits of the longer operand, 1 to 3: the number of columns worked."""
        return len(str(max(self.a, self.b)))

    @property
    def thought(self) -> str:
        """The worked columns, ones first; a negative difference first says which operand is smaller."""
        if self.op == "+":
            return "\n".join(_add_columns(self.a, self.b))
        if self.a < self.b:
            return "\n".join([f"{self.a}<{self.b}", *_subtract_columns(self.b, self.a)])
        return "\n".join(_subtract_columns(self.a, self.b))

    @property
    def reply(self) -> str:
        """The whole equation: what follows the thought."""
        return f"{self.a} {self.op} {self.b} = {self.answer}"


def is_held_out(op: str, a: int, b: int) -> bool:
    """Whether the pair belongs to the evaluation; the same for both orders of the operands."""
    key = f"{op} {min(a, b)} {max(a, b)}".encode()
    return int.from_bytes(hashlib.sha256(key).digest()[:4], "big") % HELD_OUT_ONE_IN == 0


def is_exact(problem: Problem, answer_text: str) -> bool:
    """Whether the content (what follows the thought) is the right equation and nothing else."""
    return answer_text.strip() == problem.reply


def sample_problem(rng: random.Random, *, held_out: bool = False) -> Problem:
    """One problem of the asked side of the split: operator and both operand lengths uniform, phrasing random.

    Training sees more close operands than that: which of two such numbers is smaller is the hardest step to learn.
    """
    while True:
        op = rng.choice("+-")
        a, b = _operand(rng), _operand(rng)
        if not held_out and op == "-" and rng.random() < 0.2:
            b = min(max(a + rng.randint(-11, 11), 0), 10**MAX_DIGITS - 1)
        story = rng.random() < 0.2
        if story and op == "-" and a < b:
            a, b = b, a
        if is_held_out(op, a, b) == held_out:
            return Problem(op, a, b, _story(rng, op, a, b) if story else _question(rng, op, a, b))


def held_out_problems(num_problems: int, seed: int) -> list[Problem]:
    """Distinct held-out problems, the same for the same seed."""
    rng = random.Random(seed)
    problems: dict[tuple[str, int, int], Problem] = {}
    while len(problems) < num_problems:
        problem = sample_problem(rng, held_out=True)
        problems.setdefault((problem.op, problem.a, problem.b), problem)
    return list(problems.values())


def reword(rng: random.Random, text: str) -> str:
    """The same request said less neatly: an opening or closing word, lost capitals, a lost full stop."""
    if rng.random() < 0.15:
        opening = rng.choice(OPENINGS)
        text = opening + (text[:1].lower() + text[1:] if opening.endswith((", ", "e ", "o ", "w ")) else text)
    if rng.random() < 0.1:
        text += rng.choice(CLOSINGS)
    if rng.random() < 0.15:
        text = text.lower()
    if rng.random() < 0.1:
        text = text.rstrip(".?!")
    return text


def _operand(rng: random.Random) -> int:
    num_digits = rng.randint(1, MAX_DIGITS)
    return rng.randrange(0 if num_digits == 1 else 10 ** (num_digits - 1), 10**num_digits)


def _question(rng: random.Random, op: str, a: int, b: int) -> str:
    kind = rng.random()
    if kind < 0.15:
        return reword(rng, rng.choice(COMMANDS[op]).format(a=a, b=b))
    if kind < 0.4:
        expression = rng.choice(EXPRESSIONS[op]).format(a=a, b=b)
    else:
        sign = rng.choice(MINUS_SIGNS) if op == "-" else op
        space = rng.choice(("", " "))
        expression = f"{a}{space}{sign}{space}{b}"
    return reword(rng, rng.choice(QUESTIONS).format(e=expression))


def _story(rng: random.Random, op: str, a: int, b: int) -> str:
    name, other = rng.sample(NAMES, 2)
    story = rng.choice(STORIES[op])
    things, others = rng.sample(THINGS, 2)
    return reword(rng, story.format(a=a, b=b, name=name, other=other, things=things, others=others))


def _add_columns(a: int, b: int) -> list[str]:
    lines, carry = [], 0
    num_columns = len(str(max(a, b)))
    for column in range(num_columns):
        x, y = a // 10**column % 10, b // 10**column % 10
        total = x + y + carry
        line = f"{x}+{y}{'+1' if carry else ''}={total}"
        carry = total // 10
        lines.append(line + (" carry 1" if carry and column < num_columns - 1 else ""))
    return lines


def _subtract_columns(a: int, b: int) -> list[str]:
    """Columns of a - b for a >= b: the last column never borrows."""
    lines, borrow = [], 0
    for column in range(len(str(a))):
        x, y = a // 10**column % 10, b // 10**column % 10
        difference = x - y - borrow
        borrows = difference < 0
        line = f"{x + 10 if borrows else x}-{y}{'-1' if borrow else ''}={difference % 10}"
        borrow = int(borrows)
        lines.append(line + (" borrow 1" if borrows else ""))
    return lines
