"""A dynamo worker whose role flag does not say what the worker is meant to be.

What a component is called decides nothing: the command line does. A prefill worker without a role registers as one more
aggregated worker, and nothing is disaggregated. From dynamo 1.4.2 on prefill waits for a worker that says it decodes:
without --disaggregation-mode decode every pod is 1/1 Running, /v1/models is empty and requests get 503 "Model not
ready". Older releases take a worker without a role for decode.

Say --disaggregation-mode prefill and --disaggregation-mode decode; up to 0.9 --is-prefill-worker and nothing.
"""

from __future__ import annotations

from collections.abc import Iterator

from baton.check.bundle import Bundle
from baton.check.commands.launch import Launch
from baton.check.edits import fixes, insertions
from baton.check.facts.disaggregation import EXPLICIT_CONNECTOR, READINESS_BY_ROLE, is_dynamo_between
from baton.check.finding import Edit, Finding, Fix, Harm
from baton.check.rules import kv_connector

HARM = Harm.NOT_SERVING
SEE = (
    "https://github.com/ai-dynamo/dynamo/pull/13046",
    "https://github.com/ai-dynamo/dynamo/pull/13037",
    "https://github.com/ai-dynamo/dynamo/issues/13238",
)
SILENT = kv_connector.SILENT
FIRES = SILENT.replace("                - --disaggregation-mode=decode\n", "")
_MODE = "--disaggregation-mode"
_SWITCHES = ("--is-prefill-worker", "--is-decode-worker")


def check(bundle: Bundle) -> Iterator[Finding]:
    """Yield a finding for every worker without its role, with another's, or with two kinds of flags for it."""
    workers = [launch for launch in bundle.engines if launch.engine == "dynamo.vllm"]
    for launch in workers:
        if not launch.is_complete:
            continue
        yield from _doubled(launch)
        if launch.intended is not None and launch.role_span is not None:
            yield from _contradicts(launch)
        elif launch.intended == "prefill" and _says_nothing(launch):
            yield _silent_prefill(launch)
    for pair in bundle.pairs:
        if pair.decode in workers and pair.prefill in workers and _says_nothing(pair.decode):
            yield from _silent_decode(pair.decode, pair.prefill)


def _says_nothing(launch: Launch) -> bool:
    return launch.is_complete and launch.is_env_complete and launch.role_span is None


def _silent_prefill(launch: Launch) -> Finding:
    return Finding(
        span=launch.start,
        message=f"{launch.title} says nowhere that it prefills: it registers as aggregated, "
        "pods are green and nothing is disaggregated",
        evidence=(f"no role flag among its arguments; this is {launch.version.why}",),
        fix=_add(launch, "prefill"),
    )


def _silent_decode(launch: Launch, prefill: Launch) -> Iterator[Finding]:
    """Decode without a role, beside a prefill worker."""
    is_gated = is_dynamo_between(launch, first=READINESS_BY_ROLE)
    is_new_style = any(_name(option.written.value) == _MODE for option in prefill.options)
    if is_dynamo_between(launch, before=EXPLICIT_CONNECTOR) and not is_new_style:
        return
    is_never_served = is_gated or (is_new_style and is_dynamo_between(launch, before=EXPLICIT_CONNECTOR))
    releases = "it" if is_gated else f"dynamo from {READINESS_BY_ROLE} on"
    evidence = [f"prefill needs a live decode worker there; this is {launch.version.why}"]
    fix = _add(launch, "decode")
    if is_new_style and not is_gated and is_never_served:
        evidence.append(f"{_MODE}, which prefill says, is a flag of dynamo {EXPLICIT_CONNECTOR} and later")
        fix = Fix(f"add {_MODE} decode, and run an image that takes it on both sides")
    yield Finding(
        span=launch.start,
        message=f"{launch.title} says nowhere that it decodes: {releases} shows no model, "
        'pods are green, /v1/models is empty and requests get 503 "Model not ready"',
        evidence=tuple(evidence),
        fix=fix,
        also=((prefill.role_span, "prefill says its role"),) if prefill.role_span is not None else (),
        harm=None if is_never_served else Harm.FRAGILE,
    )


def _contradicts(launch: Launch) -> Iterator[Finding]:
    meant, role, span = launch.intended, launch.role, launch.role_span
    if role is None or role == meant or meant is None or span is None:
        return
    # Up to 1.2 an aggregated worker decodes for a prefill worker.
    if role == "aggregated" and meant == "decode" and not is_dynamo_between(launch, first=READINESS_BY_ROLE):
        return
    yield Finding(
        span=span,
        message=f"{launch.title} is meant as {meant} and registers as {role}: "
        f"the frontend finds no {meant} worker for it, and pods are green",
        evidence=(f"the component, a label or a name says {meant}",),
        fix=Fix(f"write {_MODE} {meant}", _rewritten(launch, meant)),
    )


def _doubled(launch: Launch) -> Iterator[Finding]:
    mode = next((o for o in launch.options if _name(o.written.value) == _MODE), None)
    switch = next((o for o in launch.options if _name(o.written.value) in _SWITCHES), None)
    if mode is None or switch is None or not is_dynamo_between(launch, EXPLICIT_CONNECTOR, READINESS_BY_ROLE):
        return
    yield Finding(
        span=switch.span,
        message=f"{launch.version.name} refuses {_name(switch.written.value)} beside {_MODE}: "
        "it exits with a ValueError, and the pod restarts",
        evidence=(f"this is {launch.version.why}",),
        fix=Fix("remove it", fixes.remove_option(switch)),
        also=((mode.span, "the flag that says it already"),),
        harm=Harm.NOT_STARTING,
    )


def _add(launch: Launch, side: str) -> Fix:
    if is_dynamo_between(launch, before=EXPLICIT_CONNECTOR):
        return Fix(f"add --is-{side}-worker")
    words = f"add {_MODE} {side}"
    if not is_dynamo_between(launch, first=EXPLICIT_CONNECTOR):
        return Fix(f"{words} (up to 0.9 --is-{side}-worker)")
    return Fix(words, insertions.option(launch, _MODE, side))


def _rewritten(launch: Launch, side: str) -> tuple[Edit, ...]:
    mode = next((o for o in launch.options if o.name == _MODE and o.span == launch.role_span), None)
    return fixes.replace_value(mode, side) if mode is not None else ()


def _name(written: str) -> str:
    return written.replace("_", "-")
