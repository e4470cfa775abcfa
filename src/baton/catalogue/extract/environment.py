"""The environment variables of an engine's envs.py: names from its table, types and defaults from its annotations."""

from __future__ import annotations

import ast
import re

from baton.catalogue.extract import describe
from baton.catalogue.extract.describe import Data
from baton.catalogue.extract.hints import HintReader
from baton.catalogue.extract.interpreter import Interpreter
from baton.catalogue.extract.sources import Sources
from baton.catalogue.extract.values import EnvDefault, is_known

_TABLE = "environment_variables"
_READS = re.compile(
    r"""(?:getenv\(|environ(?:\.get\(|\.setdefault\(|\[))\s*["'](\w+)["']|["'](\w+)["'] (?:not )?in os\.environ"""
)
_WITH_CHOICES = {"env_with_choices": "str", "env_list_with_choices": "list", "env_set_with_choices": "list"}


def environment(interpreter: Interpreter, reader: HintReader, module: str) -> Data:
    """Return every variable of the table with type, default, choices and deprecation, by name."""
    table = interpreter.sources.bindings(module).get(_TABLE)
    value = getattr(table, "value", None)
    if not isinstance(value, ast.Dict):
        raise ValueError(f"{module} has no literal table {_TABLE}: this version keeps its variables elsewhere")
    annotated = {
        node.target.id: node
        for node in ast.walk(interpreter.sources.tree(module) or ast.Module([], []))
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name)
    }
    lines = interpreter.sources.text(module).splitlines()
    out: Data = {}
    for key, reads in zip(value.keys, value.values, strict=True):
        if isinstance(key, ast.Constant) and isinstance(key.value, str):
            data = _variable(interpreter, reader, module, annotated.get(key.value), reads)
            said = _deprecation(lines, key.lineno)
            out[key.value] = data | ({"deprecated": said} if said else {})
    return out


def read_directly(sources: Sources, prefix: str, listed: Data) -> Data:
    """Return the variables of `prefix` that some module reads itself and the table lacks, marked `unlisted`."""
    names = {name for m in sources.modules() for pair in _READS.findall(sources.text(m)) for name in pair}
    return {n: {"type": "str", "unlisted": True} for n in names if n.startswith(prefix) and n not in listed}


def _variable(
    interpreter: Interpreter, reader: HintReader, module: str, declared: ast.AnnAssign | None, reads: ast.expr
) -> Data:
    out: Data = {"type": "str"}
    if declared is not None:
        hints = reader.read(declared.annotation, module)
        kinds = [h.kind for h in hints if h.kind != "none"]
        out["type"] = "str" if "literal" in kinds or not kinds else kinds[0]
        values = [v for h in hints if h.kind == "literal" for v in h.values]
        if values:
            out["choices"] = values
        if declared.value is not None:
            out |= describe.default(interpreter.evaluate(declared.value, module, {}))
    call = reads.body if isinstance(reads, ast.Lambda) else reads
    if declared is None and isinstance(read := interpreter.evaluate(call, module, {}), EnvDefault):
        out |= describe.default(read.default)
        out["type"] = type(read.default).__name__ if isinstance(read.default, bool | int | float) else "str"
    name = call.func.id if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) else ""
    if isinstance(call, ast.Call) and name in _WITH_CHOICES:
        arguments = dict(zip(("name", "default", "choices"), call.args, strict=False))
        arguments |= {k.arg: k.value for k in call.keywords if k.arg}
        choices = interpreter.evaluate(arguments["choices"], module, {})
        out["type"] = _WITH_CHOICES[name]
        if isinstance(choices, list | tuple) and is_known(choices):
            out["choices"] = list(choices)
        out |= describe.default(interpreter.evaluate(arguments["default"], module, {}))
        strict = arguments.get("case_sensitive")
        if isinstance(strict, ast.Constant) and strict.value is False:
            out["any_case"] = True
    return out


def _deprecation(lines: list[str], line: int) -> str:
    """Return the comment directly above a table entry if it speaks of deprecation, "" otherwise."""
    at = line - 1
    while at > 0 and lines[at - 1].strip().startswith("#"):
        at -= 1
    comment = " ".join(text.strip().lstrip("#").strip() for text in lines[at : line - 1])
    return describe.deprecation_in(comment)
