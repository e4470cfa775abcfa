"""JSON of a config flag that its own dotted keys wipe out.

vLLM gathers all `--compilation-config.key value` words into one `--compilation-config {...}` and puts it at the end of
the line, where the parser takes the last and forgets the JSON given before it: all of it, without a word, in whatever
order they were written. The engine runs with the defaults of every key of the JSON.

Write all keys in one way: all dotted, or all in the JSON.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from baton.check.bundle import Bundle
from baton.check.commands.arguments import Argument
from baton.check.commands.launch import Launch
from baton.check.edits import fixes
from baton.check.facts import json_text
from baton.check.finding import Edit, Finding, Fix, Harm

HARM = Harm.WASTED
SEE = ()
FIRES = """\
#!/bin/bash
docker run vllm/vllm-openai:v0.32.0 --model m \\
  --compilation-config '{"cudagraph_mode":"FULL_DECODE_ONLY"}' --compilation-config.pass_config.fuse_norm_quant true
"""
SILENT = """\
#!/bin/bash
docker run vllm/vllm-openai:v0.32.0 --model m --compilation-config.cudagraph_mode FULL_DECODE_ONLY \\
  --compilation-config.pass_config.fuse_norm_quant true
"""
_JSON = ("config", "json", "json_or_str")


def check(bundle: Bundle) -> Iterator[Finding]:
    """Yield a finding for every JSON whose flag is also given with keys."""
    for launch in bundle.launches:
        for option in launch.options:
            if option.path or option.flag is None or option.flag.type not in _JSON:
                continue
            if not option.words or option.words[0].is_splitting:
                continue
            dotted = [other for other in launch.all_given(option.name) if other.path]
            if dotted and option is launch.given(option.name):
                yield _finding(launch, option, dotted)


def _finding(launch: Launch, option: Argument, dotted: list[Argument]) -> Finding:
    name = option.name
    member_of = json_text.members(option.words[0].text) if option.value is not None else ()
    keys = [".".join(member.path) for member in member_of if not isinstance(member.data, dict)]
    lost = f": {', '.join(keys[:6])}{' ...' if len(keys) > 6 else ''}" if keys else ""
    together = f"{name}.{keys[0]}" if keys else f"{name}.key"
    return Finding(
        span=option.words[0].span,
        message=f"the JSON of {name} is lost{lost}",
        evidence=(
            "vLLM puts the dotted keys together as one JSON at the end of the line, and the last one counts; "
            "every release does so",
        ),
        fix=Fix(f"write every key in one way, such as {together}", _edits(option, member_of)),
        also=tuple((other.span, "this takes its place") for other in dotted[:3]),
    )


def _edits(option: Argument, members: tuple[json_text.Member, ...]) -> tuple[Edit, ...]:
    """The JSON as one dotted key, where it has no more than one."""
    leaves = [member for member in members if not isinstance(member.data, dict)]
    if len(leaves) != 1 or len(members) != len(leaves[0].path) or isinstance(leaves[0].data, list):
        return ()
    value = leaves[0].data if isinstance(leaves[0].data, str) else json.dumps(leaves[0].data)
    renaming = fixes.rename_option(option, f"{option.written.value}.{'.'.join(leaves[0].path)}")
    replacing = fixes.replace_value(option, value)
    return (*renaming, *replacing) if renaming and replacing else ()
