"""Asks any OpenAI-compatible server 1,000 problems that tiny-r1 was never trained on, and counts the exact answers.

    python models/tiny-r1/evaluate.py http://127.0.0.1:8000 [--limit 200] [--json]

Greedy, one turn each, `--concurrency` at a time. Exact means: what follows the thought is the right equation and
nothing else. A request that fails counts as wrong. Exits 0 if at least 98% are exact, else 1; 2 if there is no
server. Standard library only; works with and without a reasoning parser on the server.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
import urllib.error
import urllib.request
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

sys.path.insert(0, str(Path(__file__).parent))
from problems import Problem, held_out_problems, is_exact

REQUIRED_FRACTION = 0.98
END_THINK = "</think>"


class Result(NamedTuple):
    """What came back for one problem: the content, or what went wrong; and its cost."""

    problem: Problem
    content: str
    finish_reason: str
    num_output_tokens: int
    latency_s: float

    @property
    def exact(self) -> bool:
        """Ended by itself, with the right equation."""
        return self.finish_reason == "stop" and is_exact(self.problem, self.content)


def post(url: str, body: dict[str, object], timeout_s: float) -> dict[str, Any]:
    """POST JSON, return JSON; raises OSError if the server can't be reached or says no."""
    request = urllib.request.Request(  # noqa: S310 - main() lets only http and https through
        url, data=json.dumps(body).encode(), headers={"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=timeout_s) as response:  # noqa: S310
        document: dict[str, Any] = json.load(response)
        return document


def ask(base_url: str, model: str, problem: Problem, timeout_s: float) -> Result:
    """One problem as a chat of one turn."""
    body: dict[str, object] = {
        "model": model,
        "messages": [{"role": "user", "content": problem.question}],
        "temperature": 0,
        "max_tokens": 96,
    }
    start = time.monotonic()
    try:
        answer = post(f"{base_url}/v1/chat/completions", body, timeout_s)
        choice = answer["choices"][0]
        content = (choice["message"]["content"] or "").rpartition(END_THINK)[2]
        num_output_tokens = answer["usage"]["completion_tokens"]
        return Result(problem, content, choice["finish_reason"], num_output_tokens, time.monotonic() - start)
    except (OSError, KeyError, IndexError, ValueError) as error:
        return Result(problem, repr(error), "error", 0, time.monotonic() - start)


def first_model(base_url: str, timeout_s: float) -> str:
    """The first model that the server lists."""
    with urllib.request.urlopen(f"{base_url}/v1/models", timeout=timeout_s) as response:  # noqa: S310
        return str(json.load(response)["data"][0]["id"])


def summarize(results: list[Result], wall_s: float) -> dict[str, Any]:
    """Accuracy overall, by operator and by digits, and what it cost."""
    groups: dict[str, list[bool]] = defaultdict(list)
    for result in results:
        groups[f"{result.problem.op} {result.problem.num_digits} digits"].append(result.exact)
    num_tokens = sum(result.num_output_tokens for result in results)
    return {
        "num_problems": len(results),
        "num_exact": sum(result.exact for result in results),
        "exact_fraction": sum(result.exact for result in results) / len(results),
        "num_failed_requests": sum(result.finish_reason == "error" for result in results),
        "by_kind": {kind: {"num_exact": sum(exact), "num": len(exact)} for kind, exact in sorted(groups.items())},
        "output_tokens_mean": num_tokens / len(results),
        "output_tokens_max": max(result.num_output_tokens for result in results),
        "output_tokens_per_s": num_tokens / wall_s,
        "wall_s": wall_s,
        "wrong": [
            {
                "question": r.problem.question,
                "right": r.problem.reply,
                "got": r.content,
                "finish_reason": r.finish_reason,
            }
            for r in results
            if not r.exact
        ],
    }


def report(summary: dict[str, Any], conditions: str) -> str:
    """The summary for people."""
    lines = [
        f"exact  {summary['exact_fraction']:.2%}  ({summary['num_exact']} of {summary['num_problems']}; "
        f"{summary['num_failed_requests']} requests failed)",
        *(f"  {kind}  {count['num_exact']:4d} of {count['num']:4d}" for kind, count in summary["by_kind"].items()),
        f"tokens per answer  mean {summary['output_tokens_mean']:.1f}, largest {summary['output_tokens_max']}",
        f"speed  {summary['output_tokens_per_s']:.0f} output tokens/s, {summary['wall_s']:.1f} s in all",
        f"conditions  {conditions}",
        *(
            f"WRONG {w['question']!r}: {w['got']!r} ({w['finish_reason']}), not {w['right']!r}"
            for w in summary["wrong"][:10]
        ),
    ]
    return "\n".join(lines)


def main() -> int:
    """Ask, count, print; 0 if enough are exact."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base_url", help="http://host:port, with or without /v1")
    parser.add_argument("--model", help="default: the first that the server lists")
    parser.add_argument("--limit", type=int, default=1000, metavar="N", help="ask only the first N problems")
    parser.add_argument("--seed", type=int, default=0, help="which held-out problems")
    parser.add_argument("--concurrency", type=int, default=16)
    parser.add_argument("--timeout-s", type=float, default=120.0, help="of one request")
    parser.add_argument("--json", action="store_true", help="print the summary as JSON")
    args = parser.parse_args()
    base_url = args.base_url.rstrip("/").removesuffix("/v1")
    if not base_url.startswith(("http://", "https://")):
        parser.error(f"base_url {args.base_url!r} is not http://... or https://...")
    if args.limit < 1:
        parser.error(f"--limit {args.limit}: at least 1")
    try:
        model = args.model or first_model(base_url, args.timeout_s)
    except OSError as error:
        parser.exit(2, f"{base_url}/v1/models: {error}\n")
    start = time.monotonic()
    with ThreadPoolExecutor(args.concurrency) as pool:
        problems = held_out_problems(args.limit, args.seed)
        results = list(pool.map(lambda problem: ask(base_url, model, problem, args.timeout_s), problems))
    summary = summarize(results, time.monotonic() - start)
    conditions = (
        f"{model} at {base_url}, greedy, one turn, max_tokens 96, concurrency {args.concurrency}, seed {args.seed}"
    )
    print(json.dumps({"conditions": conditions, **summary}, indent=2) if args.json else report(summary, conditions))
    return 0 if summary["exact_fraction"] >= REQUIRED_FRACTION else 1


if __name__ == "__main__":
    sys.exit(main())
