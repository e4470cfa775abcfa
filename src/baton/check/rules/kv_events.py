"""A router that goes by KV events, and workers that publish none; or the other way round.

In kv mode the front door keeps an index of which worker holds which blocks, from events that the workers publish. From
dynamo 1.2 on they publish only with --kv-events-config '{"enable_kv_cache_events":true,...}' (before, dynamo set it by
itself), and never with prefix caching off. Without events the index stays empty and no prefix is ever found: the mode
costs its work and gives nothing. Workers that publish to a router that does not listen pay for it too.

Give the prefill, or aggregated, workers --kv-events-config; or set --no-router-kv-events, and the router guesses.
"""

from __future__ import annotations

from collections.abc import Iterator

from baton.check.bundle import Bundle
from baton.check.commands.launch import Launch
from baton.check.facts.disaggregation import is_dynamo_between
from baton.check.finding import Finding, Fix, Harm
from baton.check.rules import router_mode
from baton.check.text import Span

HARM = Harm.WASTED
SEE = ()
SILENT = router_mode.SILENT
FIRES = "\n".join(line for line in SILENT.split("\n") if "kv-events-config" not in line)
_CONFIG, _ENABLED = "--kv-events-config", "enable_kv_cache_events"
_EXPLICIT = "1.2"  # dynamo/vllm/args.py of 1.2.1 makes no config where none is given, 1.0.2 does
_WORDS = """'{"enable_kv_cache_events":true,"publisher":"zmq","endpoint":"tcp://*:20080"}'"""
_OTHERS = ("round-robin", "random", "power-of-two", "least-loaded", "device-aware-weighted")


def check(bundle: Bundle) -> Iterator[Finding]:
    """Yield a finding for every worker whose events are missing, or go nowhere."""
    for group in bundle.deployments:
        doors = [launch for launch in group if launch.engine == "dynamo.frontend"]
        workers = [launch for launch in group if launch.engine == "dynamo.vllm" and launch.side != "decode"]
        if not doors:
            continue
        modes = {door.value("--router-mode") for door in doors}
        if modes == {"kv"} and all(_listens(door) for door in doors):
            for worker in workers:
                yield from _missing(worker, doors[0])
        elif modes <= {*_OTHERS} and all(door.given("--router-mode") for door in doors):
            for worker in workers:
                yield from _unheard(worker, doors[0])


def _listens(door: Launch) -> bool:
    """Whether a router in kv mode goes by events, as it does unless told not to."""
    given = [option for name in ("--router-kv-events", "--kv-events") if (option := door.given(name)) is not None]
    variable = door.env.get("DYN_ROUTER_USE_KV_EVENTS")
    if given or variable is None:
        return not any(option.negated for option in given)
    return variable.is_known and variable.value.lower() in ("true", "1", "yes", "on")


def _missing(worker: Launch, door: Launch) -> Iterator[Finding]:
    found = _reason(worker)
    if found is not None:
        span, reason, words = found
        yield Finding(
            span=span,
            message=f"the router goes by KV events and {worker.title} publishes none ({reason}): "
            "it finds no cached prefix, and requests are spread by load alone",
            evidence=(f"this is {worker.version.why}",),
            fix=Fix(words),
            also=((door.start, "routes in kv mode"),),
        )


def _reason(worker: Launch) -> tuple[Span, str, str] | None:
    caching, given = worker.given("--enable-prefix-caching"), worker.given(_CONFIG)
    if caching is not None and caching.negated:
        return caching.span, "prefix caching is off", "remove --no-enable-prefix-caching"
    if given is None and worker.lacks(_CONFIG) and is_dynamo_between(worker, first=_EXPLICIT):
        return worker.start, f"no {_CONFIG}", f"add {_CONFIG} {_WORDS}"
    if given is not None and isinstance(worker.json(given), dict) and worker.config(_CONFIG, _ENABLED) is False:
        return given.span, f"{_ENABLED} is not true", f'write "{_ENABLED}":true'
    return None


def _unheard(worker: Launch, door: Launch) -> Iterator[Finding]:
    given = worker.given(_CONFIG)
    if given is not None and worker.config(_CONFIG, _ENABLED) is True:
        mode = door.value("--router-mode")
        yield Finding(
            span=given.span,
            message=f"{worker.title} publishes KV events and the router is in {mode} mode: nothing reads them",
            evidence=("only kv mode keeps an index of cached blocks",),
            fix=Fix("write --router-mode kv on the frontend, or remove it here"),
            also=((door.start, f"routes in {mode} mode"),),
        )
