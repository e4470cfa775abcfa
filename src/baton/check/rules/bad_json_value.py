"""A value that a config's key does not take.

vLLM reads configs by their types: a name that is not among the choices, a fraction where a whole number belongs, null
where a value must be, and it exits before it loads anything. Numbers and truth values may stand as strings, `"1000"`
and `"False"`.

Write one of the values the release takes.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from baton.catalogue import history
from baton.catalogue.engine import EngineCatalogue, Key
from baton.check.bundle import Bundle
from baton.check.commands import values
from baton.check.commands.launch import Launch
from baton.check.edits import fixes
from baton.check.facts import absent, config_keys, lives
from baton.check.facts.config_keys import GivenKey
from baton.check.finding import Finding, Fix, Harm

HARM = Harm.NOT_STARTING
SEE = ()
FIRES = """\
#!/bin/bash
docker run vllm/vllm-openai:v0.32.0 --model m --eplb-config '{"window_size":"many","use_async":true}'
"""
SILENT = """\
#!/bin/bash
docker run vllm/vllm-openai:v0.32.0 --model m --eplb-config '{"window_size":"1000","log_balancedness":"False"}'
"""
# Enums that their validators look up by name: vllm/config/compilation.py of 0.11.0, attention.py of 0.14.1 and 0.24.0.
_CLOSED = (
    "--compilation-config.cudagraph_mode",
    "--attention-config.backend",
    "--attention-config.mla_prefill_backend",
)


def check(bundle: Bundle) -> Iterator[Finding]:
    """Yield a finding for every value that all candidates refuse."""
    for launch in bundle.launches:
        for key in config_keys.given(launch):
            if key.value is None:
                continue
            said = [_refusal(key.name, key.of(c), key.data) for c in launch.version.catalogues]
            found = [s for s in said if s is not None]
            if found and all(found):
                yield _finding(launch, key, found[-1])


def _refusal(name: str, key: Key | None, data: Any) -> str | None:
    """Why a release refuses a value; "" if it takes it, None if it has no such key."""
    if key is None:
        return None
    names = key.choices or key.known
    # Some of these names are folded before they are compared, others are not; only what fits neither way is judged.
    if isinstance(data, str) and _folded(data) in {_folded(str(n)) for n in names}:
        return ""
    if key.known and not key.choices:
        is_judged = name in _CLOSED and isinstance(data, str) and data.lower() != "auto"
        return f"{data!r} is not one of {values.listed(names)}" if is_judged else ""
    if key.type == "list":
        return ""
    try:
        values.of_json(key, data)
    except ValueError as error:
        return str(error)
    return ""


def _folded(text: str) -> str:
    return text.lower().replace("-", "_")


def _finding(launch: Launch, key: GivenKey, said: str) -> Finding:
    known = key.of(launch.version.catalogues[-1])
    choices = [str(choice) for choice in (known.choices or known.known)] if known is not None else []
    close = history.close(str(key.data), choices, 1)
    fix = Fix(f"write one of {values.listed(choices)}" if choices else "write a value of that type, or remove the key")
    if close and key.value is not None:
        text = key.value[1:-1] if key.value.value.startswith('"') else key.value
        fix = Fix(f"did you mean {close[0]}?", fixes.replace_text(text, close[0]), is_guess=True)
    instead = lives.replacement(launch, "value", f"{key.name} {key.data}")
    assert key.value is not None, "only keys with a value are judged"
    return Finding(
        span=key.value.span(),
        message=f"{launch.version.name} refuses {key.data!r} for {key.name}",
        evidence=(said, *_since(launch, key)),
        fix=fix,
        see=lives.threads(instead),
    )


def _since(launch: Launch, key: GivenKey) -> Iterator[str]:
    """When the value was taken, if ever."""

    def has(catalogue: EngineCatalogue) -> bool:
        known = key.of(catalogue)
        return known is not None and key.data in (*known.choices, *known.known)

    absence = absent.of(launch, has)
    if absence is not None and absence.life is not None:
        yield absent.words(launch, absence)
