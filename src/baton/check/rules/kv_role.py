"""A kv_role that is missing, the wrong way round, or no longer wanted.

--kv-transfer-config with a connector but no kv_role is refused: the engine exits. A prefill engine that calls itself
kv_consumer, or a decode engine kv_producer, is refused by connectors that look at the role (Mooncake, NIXL in push
mode, P2pNccl): KV is not handed over. NixlConnector in pull mode does not look, yet: it works until it does.
kv_both is deprecated with NixlConnector since vLLM 0.24.

Write kv_producer for prefill and kv_consumer for decode.
"""

from __future__ import annotations

from collections.abc import Iterator

from baton.check.bundle import Bundle
from baton.check.commands.launch import Launch
from baton.check.edits import fixes, insertions
from baton.check.facts import disaggregation as disagg
from baton.check.facts.disaggregation import CONFIG
from baton.check.finding import Edit, Finding, Fix, Harm

HARM = Harm.NOT_STARTING
SEE = ()
_SCRIPT = """\
#!/bin/bash
docker run vllm/vllm-openai:v0.32.0 --model /models/qwen --kv-transfer-config '{"kv_connector":"NixlConnector"%s}'
"""
FIRES = _SCRIPT % ""
SILENT = _SCRIPT % ',"kv_role":"kv_producer"'
_ROLES = {"prefill": "kv_producer", "decode": "kv_consumer"}
_EITHER = "kv_producer for prefill, kv_consumer for decode"
_PULLS = ("NixlConnector", "NixlPullConnector")
_BOTH_DEPRECATED = "0.24.0"  # vllm/distributed/kv_transfer/kv_connector/v1/nixl/connector.py, absent in 0.22.1


def check(bundle: Bundle) -> Iterator[Finding]:
    """Yield a finding for every engine whose kv_role is missing or not that of its side."""
    for launch in bundle.engines:
        config = launch.kv_transfer
        if config is None or not isinstance(config.get("kv_connector"), str):
            continue
        side = launch.role if launch.engine == "dynamo.vllm" and launch.role in _ROLES else launch.intended
        role = config.get("kv_role")
        if role is None and not any(o.path == ("kv_role",) for o in launch.all_given(CONFIG)):
            yield _missing(launch, side)
        elif side is not None and role in _ROLES.values() and role != _ROLES[side]:
            yield _swapped(launch, side, str(role))
        elif role == "kv_both" and disagg.uses_nixl(launch) and launch.is_between(first=_BOTH_DEPRECATED):
            yield _deprecated(launch, side)


def _missing(launch: Launch, side: str | None) -> Finding:
    option = launch.given(CONFIG) or launch.all_given(CONFIG)[0]
    edits = insertions.into_json(option, ("kv_role",), _ROLES[side]) if side else ()
    return Finding(
        span=option.span,
        message=f"{CONFIG} names a connector and no kv_role: the engine exits",
        evidence=("vLLM: Please specify kv_role when kv_connector is set",),
        fix=Fix(f'add "kv_role":"{_ROLES[side]}"' if side else f'add "kv_role", {_EITHER}', edits),
    )


def _swapped(launch: Launch, side: str, role: str) -> Finding:
    connector = (launch.kv_transfer or {})["kv_connector"]
    is_ignored = connector in _PULLS
    result = "NIXL pulls all the same, until a release looks at it" if is_ignored else "no request gets its KV"
    key = disagg.transfer_key(launch, "kv_role")
    return Finding(
        span=disagg.value_text(key).span() if key is not None else launch.start,
        message=f"{launch.title} is {side} and its kv_role {role!r}: {result}",
        evidence=(f"{side} is what a flag, a label or a name says of it",),
        fix=Fix(f"write {_ROLES[side]}", _edits(launch, side)),
        also=((launch.role_span, f"says {side}"),) if launch.role_span and launch.role == side else (),
        harm=Harm.FRAGILE if is_ignored else Harm.NOT_SERVING,
    )


def _deprecated(launch: Launch, side: str | None) -> Finding:
    key = disagg.transfer_key(launch, "kv_role")
    instead = _ROLES[side] if side else _EITHER
    return Finding(
        span=disagg.value_text(key).span() if key is not None else launch.start,
        message=f"kv_role 'kv_both' is deprecated with {(launch.kv_transfer or {})['kv_connector']}: "
        "a later release will refuse it",
        evidence=(f"deprecated since vLLM {_BOTH_DEPRECATED}; this is {launch.version.why}",),
        fix=Fix(f"write {instead}", _edits(launch, side) if side else ()),
        harm=Harm.FRAGILE,
    )


def _edits(launch: Launch, side: str) -> tuple[Edit, ...]:
    key = disagg.transfer_key(launch, "kv_role")
    return fixes.replace_text(disagg.value_text(key), _ROLES[side]) if key is not None else ()
