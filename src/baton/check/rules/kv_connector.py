"""An engine of a prefill/decode pair that has no KV connector, or another than its partner.

Without a connector nothing is handed over. What is called prefill computes a prompt and throws its KV away, decode
computes it again: every pod is green, every answer right, and the prompt is paid for twice. Dynamo before 1.0 took NIXL
by itself; from 1.0.2 on it takes none, and a prefill worker without --kv-transfer-config exits with a ValueError.

Give both sides the same connector, prefill as kv_producer and decode as kv_consumer (kv_both before vLLM 0.24).
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator

from baton.catalogue import history
from baton.catalogue.engine import EngineCatalogue
from baton.check.bundle import Bundle, Pair
from baton.check.commands import versions
from baton.check.commands.launch import Launch
from baton.check.edits import fixes
from baton.check.facts import disaggregation as disagg
from baton.check.facts.disaggregation import CONFIG, EXPLICIT_CONNECTOR
from baton.check.facts.plugins import has_plugin
from baton.check.finding import Finding, Fix, Harm

HARM = Harm.NOT_SERVING
SEE = ("https://github.com/kserve/kserve/issues/5987",)
_GRAPH = """\
apiVersion: nvidia.com/v1beta1
kind: DynamoGraphDeployment
metadata: {name: pair}
spec:
  components:
    - name: frontend
      type: frontend
      podTemplate:
        spec: {containers: [{name: main, image: "nvcr.io/nvidia/ai-dynamo/vllm-runtime:1.6.1"}]}
    - name: prefill
      type: prefill
      podTemplate:
        spec:
          containers:
            - name: main
              image: nvcr.io/nvidia/ai-dynamo/vllm-runtime:1.6.1
              command: [python3, -m, dynamo.vllm]
              args:
                - --model=/models/qwen
                - --disaggregation-mode=prefill%s
    - name: decode
      type: decode
      podTemplate:
        spec:
          containers:
            - name: main
              image: nvcr.io/nvidia/ai-dynamo/vllm-runtime:1.6.1
              command: [python3, -m, dynamo.vllm]
              args:
                - --model=/models/qwen
                - --disaggregation-mode=decode
                - '--kv-transfer-config={"kv_connector":"NixlConnector","kv_role":"kv_consumer"}'
"""
FIRES = _GRAPH % ""
SILENT = _GRAPH % (
    """\n                - '--kv-transfer-config={"kv_connector":"NixlConnector","kv_role":"kv_producer"}'"""
)
_WRAPPERS = ("MultiConnector", "PdConnector", "DecodeBenchConnector")
_NEAR = 0.9
_KV_ROLES = {"prefill": "kv_producer", "decode": "kv_consumer"}


def check(bundle: Bundle) -> Iterator[Finding]:
    """Yield a finding for engines without a connector, for unknown ones, and for pairs of different ones."""
    for launch in bundle.engines:
        yield from _unknown(launch)
        if launch.engine == "dynamo.vllm" and launch.role == "prefill" and launch.lacks(CONFIG):
            yield from _refused(launch)
    for pair in bundle.pairs:
        yield from _unequal(pair)


def _refused(launch: Launch) -> Iterator[Finding]:
    """A prefill worker of dynamo without --kv-transfer-config."""
    if disagg.is_dynamo_between(launch, before=EXPLICIT_CONNECTOR):
        return
    is_sure = disagg.is_dynamo_between(launch, first=EXPLICIT_CONNECTOR)
    who = launch.version.name if is_sure else f"dynamo from {EXPLICIT_CONNECTOR} on"
    evidence = [f"dynamo before {EXPLICIT_CONNECTOR} takes NixlConnector by itself, later releases take none"]
    if not is_sure:
        evidence.append(f"this is {launch.version.why}")
    yield Finding(
        span=launch.role_span or launch.start,
        message=f"prefill has no {CONFIG}: {who} exits with a ValueError that asks for it, and the pod restarts",
        evidence=tuple(evidence),
        fix=_fix(launch, "prefill"),
        see=("https://github.com/ai-dynamo/dynamo/pull/13046",),
        harm=Harm.NOT_STARTING if is_sure else Harm.FRAGILE,
    )


def _unequal(pair: Pair) -> Iterator[Finding]:
    prefill, decode = disagg.connector(pair.prefill), disagg.connector(pair.decode)
    if has_plugin(pair.prefill) or has_plugin(pair.decode):
        return
    if prefill == decode == "":
        if pair.prefill.engine == "vllm":
            yield _absent(pair.decode, pair.prefill, "neither side has a")
    elif decode == "" or _is_taken(pair):
        if prefill:
            yield _absent(pair.decode, pair.prefill, "decode has no")
    elif prefill == "":
        if pair.prefill.engine == "vllm" or pair.prefill.role != "prefill":
            yield _absent(pair.prefill, pair.decode, "prefill has no")
    elif prefill and decode and prefill != decode and not {prefill, decode} & {*_WRAPPERS}:
        key, other = (disagg.transfer_key(side, "kv_connector") for side in (pair.decode, pair.prefill))
        yield Finding(
            span=disagg.value_text(key).span() if key is not None else pair.decode.start,
            message=f"decode takes KV by {decode}, prefill gives it by {prefill}: no request gets its KV",
            evidence=("two connectors do not speak to each other",),
            fix=Fix("name the same kv_connector on both sides"),
            also=((disagg.value_text(other).span() if other else pair.prefill.start, f"prefill has {prefill}"),),
        )


def _is_taken(pair: Pair) -> bool:
    """Whether decode has no connector in every release that starts prefill as it is written."""
    decode, prefill = pair.decode, pair.prefill
    return (
        disagg.connector(decode) is None
        and prefill.engine == decode.engine == "dynamo.vllm"
        and decode.lacks(CONFIG, "--connector")
        and bool(prefill.all_given(CONFIG))
        and prefill.lacks("--connector")
    )


def _absent(launch: Launch, partner: Launch, who: str) -> Finding:
    side = launch.side or "decode"
    return Finding(
        span=launch.start,
        message=f"{who} KV connector: pods are green, and decode computes again every prompt that prefill computed",
        evidence=(f"{CONFIG} is not given; this is {launch.version.why}",),
        fix=_fix(launch, side),
        also=((partner.start, f"the {partner.side or 'other'} side"),),
    )


def _fix(launch: Launch, side: str) -> Fix:
    role = _KV_ROLES[side] if launch.is_between(first="0.24.0") else "kv_both"
    return Fix(
        f"""add {CONFIG} '{{"kv_connector":"NixlConnector","kv_role":"{role}"}}', and its like to the other side"""
    )


def _unknown(launch: Launch) -> Iterator[Finding]:
    """A connector that the release has not, where the name is not that of a module given beside it."""
    key = disagg.transfer_key(launch, "kv_connector")
    if key is None or key.value is None or not isinstance(key.data, str):
        return
    here = _names(launch.version.catalogues)
    if not here or key.data in here or disagg.transfer_key(launch, "kv_connector_module_path") is not None:
        return
    is_other = key.data in _names(versions.candidates(launch.engine))
    who = f"{launch.version.name} has no" if is_other else "no release has a"
    text = disagg.value_text(key)
    close = () if is_other else history.close(key.data, sorted(here), 1)
    is_slip = bool(close) and _is_slip(key.data, close[0])
    if has_plugin(launch) or not (launch.version.is_known or is_slip):
        return  # a plugin, or an unknown image, may bring connectors of its own
    is_sure = launch.version.is_known or launch.version.span is None
    fix = (
        Fix(f"did you mean {close[0]}?", fixes.replace_text(text, close[0]), is_guess=True)
        if close
        else Fix("name one that exists")
    )
    unless = "" if is_sure else ", unless its image brings it"
    yield Finding(
        span=text.span(),
        message=f"{who} KV connector {key.data!r}: the engine exits{unless}",
        evidence=(f"the connectors are {', '.join(sorted(here))}, or one that kv_connector_module_path names",),
        fix=fix,
        harm=Harm.NOT_STARTING if is_sure else Harm.UNKNOWN,
    )


def _is_slip(name: str, meant: str) -> bool:
    """Whether a name is but a few letters away from another, and not that one with something behind it."""
    return not name.startswith(meant) and difflib.SequenceMatcher(None, name.lower(), meant.lower()).ratio() >= _NEAR


def _names(catalogues: tuple[EngineCatalogue, ...]) -> set[str]:
    return {name for catalogue in catalogues for name in catalogue.enums.get("kv_connector", ())}
