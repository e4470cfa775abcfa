"""Shell arithmetic over whole numbers: + - * / % and brackets, on numbers and variables whose value is known."""

from __future__ import annotations

import re
from collections.abc import Callable

MAX_CHARS = 200
_TOKEN = re.compile(r"\s*(?:(\d+)|\$?\{?([A-Za-z_]\w*)\}?|(\S))", re.ASCII)


def evaluate(expression: str, lookup: Callable[[str], str | None]) -> int | None:
    """Return what an expression gives; None if it holds anything that is not known, or that is not read here."""
    tokens: list[str] = []
    if len(expression) > MAX_CHARS:
        return None
    for number, name, operator in _TOKEN.findall(expression.strip()):
        value = number or operator or lookup(name) or ""
        if not (operator and operator in "+-*/%()") and not _is_number(value):
            return None
        tokens.append(value)
    tokens.reverse()
    result = _sum(tokens)
    return result if not tokens and result is not None and abs(result) < 1 << 63 else None


def _is_number(value: str) -> bool:
    return value.isascii() and value.isdecimal() and len(value) < 19 and (value == "0" or value[0] != "0")


def _sum(tokens: list[str]) -> int | None:
    result = _product(tokens)
    while result is not None and tokens and tokens[-1] in "+-":
        sign = 1 if tokens.pop() == "+" else -1
        term = _product(tokens)
        result = None if term is None else result + sign * term
    return result


def _product(tokens: list[str]) -> int | None:
    result = _factor(tokens)
    while result is not None and tokens and tokens[-1] in "*/%":
        operator = tokens.pop()
        factor = _factor(tokens)
        if factor is None or (factor == 0 and operator != "*"):
            return None
        if operator == "*":
            result *= factor
        else:
            quotient = abs(result) // abs(factor) * (1 if (result < 0) == (factor < 0) else -1)
            result = quotient if operator == "/" else result - quotient * factor
    return result


def _factor(tokens: list[str]) -> int | None:
    if not tokens:
        return None
    part = tokens.pop()
    if part in "+-":
        factor = _factor(tokens)
        return factor if factor is None or part == "+" else -factor
    if part != "(":
        return int(part) if part.isdecimal() else None
    result = _sum(tokens)
    return result if tokens and tokens.pop() == ")" else None
