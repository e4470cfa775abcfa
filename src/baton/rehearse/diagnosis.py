"""What went wrong in a rehearsal, and which setting of the recipe to change."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_UNKNOWN = re.compile(r"unrecognized arguments: (--[\w-]+)")
_INVALID = re.compile(r"error: argument (--?[\w-]+)[^:\n]*: ([^\n]+)")
_SLOW_S, _SLOW_SHARE = 5.0, 20.0


def diagnose(failed: Mapping[str, Any], log: str, role: str) -> str:
    """Return what failed and what to change, from the event of a failure and what the engine wrote to its log."""
    message, phase = str(failed.get("message", "")), failed.get("phase")
    everything = f"{message}\n{failed.get('traceback', '')}\n{log}"
    where = f"roles.{role}.flags or engine.flags"
    found = _of_a_flag(everything, where) if phase == "flags" else _of_memory(everything, str(phase), where)
    if found is not None:
        return found
    if failed.get("kind") == "ModuleNotFoundError" and "vllm" in message:
        return "this Python has no vLLM: name one that has with --python"
    if phase == "deadline":
        return f"nothing more was measured within --timeout; the log's last line: {_last_line(log)}"
    if phase == "died":
        return f"the engine's process ended with {failed.get('code')}; the log's last line: {_last_line(log)}"
    return f"{failed.get('kind')}: {message.splitlines()[0] if message else _last_line(log)}"


def _of_a_flag(text: str, where: str) -> str | None:
    if found := _UNKNOWN.search(text):
        flag = found.group(1)
        return f"{flag}: this engine has no such flag; take it out of {where} (baton check says what took its place)"
    if found := _INVALID.search(text):
        return f"{found.group(1)}: {found.group(2).strip()}; change it in {where}"
    return None


def _of_memory(text: str, phase: str, where: str) -> str | None:
    if "out of memory" in text.lower():
        return _out_of_memory(phase, where)
    if "No available memory for the cache blocks" in text or "KV cache is needed" in text:
        return (
            "no room for the KV of one sequence: raise gpu-memory-utilization (kv-cache-memory-bytes on a CPU) in "
            f"{where}, lower model.max_model_len, or hold fewer experts a rank (a larger dp_size)"
        )
    return None


def slow_start(point: Mapping[str, Any]) -> str | None:
    """Return a note on a point whose first step took long: kernels compiled while requests would have waited."""
    first_s, step_s = float(point["first_s"]), float(point["step_s"])
    if first_s < _SLOW_S or first_s < _SLOW_SHARE * step_s:
        return None
    return f"first step {first_s:.1f} s: kernels were compiled in it; warm this size up before it serves"


def _out_of_memory(phase: str, where: str) -> str:
    if phase == "start":
        return (
            f"out of memory while loading: lower gpu-memory-utilization or max-num-batched-tokens in {where}, "
            "or hold fewer experts a rank (a larger dp_size, fewer redundant experts)"
        )
    return f"out of memory in a step: lower gpu-memory-utilization, max-num-batched-tokens or max-num-seqs in {where}"


def _last_line(log: str) -> str:
    lines = [line for line in log.splitlines() if line.strip()]
    return lines[-1][-300:] if lines else "it is empty"
