"""Prefill and decode that do not agree on what they hand over.

KV is bytes of one model in one format. Since vLLM 0.14 NIXL compares, at the first request and not at start, a hash of
the vLLM release, the --model string as it is written, the dtype, the KV cache dtype and the attention backend: pods are
green, and the first request fails with "NIXL compatibility hash mismatch". What the hash does not hold is not compared:
other weights of the same model pass, and answer wrongly with HTTP 200.

Write these flags alike on both sides, and run one image.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

from baton.check.bundle import Bundle, Pair
from baton.check.commands.launch import Launch, Version
from baton.check.facts import disaggregation as disagg
from baton.check.facts.disaggregation import HASHED, MISMATCH
from baton.check.finding import Finding, Fix, Harm
from baton.check.text import Span

HARM = Harm.NOT_SERVING
SEE = (
    "https://github.com/vllm-project/vllm/pull/29503",
    "https://github.com/vllm-project/vllm/issues/55776",
)
_SCRIPT = """\
#!/bin/bash
docker run vllm/vllm-openai:v0.32.0 --model /models/qwen %s\\
  --kv-transfer-config '{"kv_connector":"NixlConnector","kv_role":"kv_producer"}' &
docker run vllm/vllm-openai:v0.32.0 --model /models/qwen --kv-cache-dtype fp8 \\
  --kv-transfer-config '{"kv_connector":"NixlConnector","kv_role":"kv_consumer"}' &
"""
FIRES = _SCRIPT % ""
SILENT = _SCRIPT % "--kv-cache-dtype fp8 "
_DTYPES = {"half": "float16", "float": "float32"}
_DRAFTS_WITH_KV = ("eagle", "eagle3", "mtp", "deepseek_mtp")


class Said(NamedTuple):
    """What one side says of one thing, and where."""

    value: str
    span: Span


class Row(NamedTuple):
    """One thing both sides must agree on: what it is called, how to read it, what happens, since when, how bad."""

    what: str
    read: Callable[[Launch], Said | None]
    result: str
    harm: Harm | None = None
    since: str | None = None


def check(bundle: Bundle) -> Iterator[Finding]:
    """Yield a finding for everything that a pair must agree on and does not."""
    for pair in bundle.pairs:
        has_nixl = disagg.uses_nixl(pair.prefill) and disagg.uses_nixl(pair.decode)
        for row in _ROWS:
            prefill, decode = row.read(pair.prefill), row.read(pair.decode)
            is_hashed = row.result != MISMATCH or (has_nixl and _compares(pair, row.since))
            if prefill and decode and prefill.value != decode.value and is_hashed:
                yield _finding(pair, row, prefill, decode)
        yield from _release(pair, has_nixl)
        yield from _length(pair)
        yield from _drafts(pair)


def _finding(pair: Pair, row: Row, prefill: Said, decode: Said) -> Finding:
    at, other, side = (decode, prefill, "prefill") if decode.span != pair.decode.start else (prefill, decode, "decode")
    return Finding(
        span=at.span,
        message=f"{row.what} is {prefill.value!r} on prefill and {decode.value!r} on decode: {row.result}",
        evidence=(f"prefill is {pair.prefill.version.why}; decode is {pair.decode.version.why}",),
        fix=Fix(f"write the same {row.what} on both sides"),
        also=((other.span, f"the {side} side"),),
        harm=row.harm,
    )


def _compares(pair: Pair, since: str | None) -> bool:
    """Whether both sides compare the hash; `since` None: where they do not, what differs cannot work either."""
    sides = (pair.prefill, pair.decode)
    extras = [(side.kv_transfer or {}).get("kv_connector_extra_config") for side in sides]
    if any(isinstance(extra, dict) and extra.get("enforce_handshake_compat") is False for extra in extras):
        return False
    return since is None or all(side.is_between(first=since) for side in sides)


def _flag(name: str) -> Callable[[Launch], Said | None]:
    """Read a flag where it is given."""

    def read(launch: Launch) -> Said | None:
        option = launch.given(name)
        word = option.value if option is not None else None
        return (
            Said(_DTYPES.get(word.value, word.value), option.span) if option is not None and word is not None else None
        )

    return read


def _cache_dtype(launch: Launch) -> Said | None:
    value = launch.value("--kv-cache-dtype")
    return Said(value, disagg.place(launch, "--kv-cache-dtype")) if isinstance(value, str) else None


def _model(launch: Launch) -> Said | None:
    model = launch.model
    return Said(model.value, model.span) if model is not None and model.is_known else None


def _attention(launch: Launch) -> Said | None:
    option = launch.given("--attention-backend")
    dotted = [o for o in launch.all_given("--attention-config") if o.path == ("backend",)]
    found = option or (dotted[-1] if dotted else None)
    if found is not None:
        return Said(found.value.value.upper(), found.span) if found.value is not None else None
    word = launch.env.get("VLLM_ATTENTION_BACKEND") if launch.reads("VLLM_ATTENTION_BACKEND") else None
    return Said(word.value.upper(), word.span) if word is not None and word.is_known and word.value else None


def _layout(launch: Launch) -> Said | None:
    """Read the layout where it is fixed; MLA has one, and decode may be told to permute what it receives."""
    word = launch.env.get("VLLM_KV_CACHE_LAYOUT")
    is_permuted = (launch.kv_transfer or {}).get("enable_permute_local_kv")
    if word is None or not word.is_known or launch.known_model is not None or is_permuted:
        return None
    return Said(word.value.upper(), word.span)


_OTHER_WEIGHTS = "the handshake does not compare it, and decode goes on from KV of other weights, with HTTP 200"
_LAYOUT = 'the first request fails with "expects same kv_cache_layout", unless the model has MLA'
_ROWS = (
    Row("--model", _model, MISMATCH, since=HASHED),
    Row("--kv-cache-dtype", _cache_dtype, MISMATCH),
    Row("--dtype", _flag("--dtype"), MISMATCH),
    Row("the attention backend", _attention, MISMATCH, since=HASHED),
    Row("VLLM_KV_CACHE_LAYOUT", _layout, _LAYOUT),
    Row("--revision", _flag("--revision"), _OTHER_WEIGHTS, Harm.WRONG_ANSWERS),
    Row("--quantization", _flag("--quantization"), _OTHER_WEIGHTS, Harm.FRAGILE),
)


def _release(pair: Pair, has_nixl: bool) -> Iterator[Finding]:
    """Two releases, or two images of which it is not said what they hold."""
    prefill, decode = pair.prefill.version, pair.decode.version
    if prefill.engine != decode.engine or decode.span is None or prefill.span is None:
        return
    if prefill.stated and decode.stated and _vllm(prefill) != _vllm(decode) and has_nixl:
        is_hashed = _compares(pair, HASHED)
        result = MISMATCH if is_hashed else "NIXL's messages differ between releases"
        yield _images(pair, f"prefill runs {prefill.stated} and decode {decode.stated}: {result}", None)
    elif not (prefill.stated or decode.stated) and prefill.span.written != decode.span.written:
        words = f"prefill runs {prefill.span.written} and decode {decode.span.written}"
        yield _images(pair, f"{words}: with two releases of vLLM {MISMATCH}", Harm.UNKNOWN)


def _vllm(version: Version) -> str | None:
    """The release of vLLM that a version runs or embeds, so far as it is stated."""
    inner = version.catalogues[0].takes_engine_flags_of if version.is_known else None
    return inner.version if inner is not None else version.stated


def _images(pair: Pair, message: str, harm: Harm | None) -> Finding:
    prefill, decode = pair.prefill.version.span, pair.decode.version.span
    assert prefill is not None
    assert decode is not None
    return Finding(
        span=decode,
        message=message,
        evidence=("the hash holds the release of vLLM and that of its NIXL connector",),
        fix=Fix("run the same image on both sides"),
        also=((prefill, "the prefill side"),),
        harm=harm,
    )


def _length(pair: Pair) -> Iterator[Finding]:
    name = "--max-model-len"
    prefill, decode = pair.prefill.value(name), pair.decode.value(name)
    if isinstance(prefill, int) and isinstance(decode, int) and 0 < decode < prefill:
        yield Finding(
            span=disagg.place(pair.decode, name),
            message=f"{name} is {prefill} on prefill and {decode} on decode: "
            f"prompts of {decode} to {prefill} tokens are computed and then refused",
            evidence=(f"decode holds {decode} tokens, prompt and answer together",),
            fix=Fix(f"write {name} {prefill} on decode, or {decode} on prefill"),
            also=((disagg.place(pair.prefill, name), "the prefill side"),),
            harm=Harm.WASTED,
        )


def _drafts(pair: Pair) -> Iterator[Finding]:
    """Drafting that adds layers to the KV cache, on one side alone or of two methods."""
    name = "--speculative-config"
    sides = (pair.prefill, pair.decode)
    methods = [side.config(name, "method") if side.all_given(name) else "" for side in sides]
    is_sure = all(m or side.lacks(name) for m, side in zip(methods, sides, strict=True))
    if not is_sure or methods[0] == methods[1] or not {*methods} & {*_DRAFTS_WITH_KV}:
        return
    at = pair.decode if pair.decode.all_given(name) else pair.prefill
    is_hashed = all(side.is_between(first="0.33.0") and disagg.uses_nixl(side) for side in sides)
    result = MISMATCH if is_hashed else "the draft has KV layers that the other side lacks, and transfers may fail"
    yield Finding(
        span=at.all_given(name)[-1].written.span,
        message=f"{methods[0] or 'nothing'} drafts on prefill, {methods[1] or 'nothing'} on decode: {result}",
        evidence=("the draft's layers are part of what is handed over",),
        fix=Fix(f"write the same {name} on both sides"),
        see=("https://github.com/vllm-project/vllm/issues/49230",),
        harm=None if is_hashed else Harm.FRAGILE,
    )
