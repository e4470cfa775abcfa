"""Recipes that nobody would write and everybody may: any sizes, any names, and texts that try to get out of quoting."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

from baton.recipe.recipe import Recipe

EVIL = "EVIL"
"""stands in most texts: where it turns up as YAML's key or in a shell's text, a value got out"""
NASTY = (
    "", " ", "a b", " a", "a ", "\t", "a\nb", "\n", "a\n\n", "\r\n", "  a\n b\n", "-", "--", "--x", "-x=1", "@file",
    "'", '"', "''", "\\", "\\n", "a'b\"c\\", "$", "$$", "$$$", "$(", "$(A)", "$$(A)", "$(LWS_LEADER_ADDRESS)",
    "$(EVIL\n)", "${A}", "$A", "$é", "$((1+1))", "`touch EVIL`", "$(touch EVIL)", "; touch EVIL", "a && touch EVIL",
    "| touch EVIL", "> EVIL", "# EVIL", " #EVIL", "\n# EVIL\n", "\nEVIL: 1\n", "\n---\nEVIL: 1\n", "EVIL: 1",
    "{EVIL: 1}", "[EVIL]", "&EVIL a", "*EVIL", "!!python/object:EVIL", "? EVIL", "- EVIL", "%YAML 1.1", "...", "---",
    "|", ">", "|-\n  EVIL", "<<", "=", "@", "~", "null", "Null", "true", "True", "yes", "No", "on", "y", "N", "1",
    "-1", "1.0", "1e3", "1e999", ".5", ".inf", "-.INF", ".nan", "0x1F", "0o17", "017", "0b1", "1_000", "12:30:45",
    "1:2", "2001-01-01", "2001-01-01T00:00:00Z", "+1", "é", "日本", "\U0001f600", "\u2028", "\u2029", "\x85", "\ufeff",
    "\xa0", "\x07", "\x1b[31m", "\x7f", "\ufffe", "{{ EVIL }}", "{0}", "%s", "%(EVIL)s", "~/EVIL", "*", "?", "[a-z]",
    "x" * 5000, "a " * 2000, "EVIL\n" * 300, '{"EVIL":1}', "</EVIL>", "EOF\nEVIL\n", "\\u0000", "\\$(EVIL)",
)  # fmt: skip

_CHARACTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
TEXT = st.one_of(
    st.sampled_from(NASTY),
    st.lists(st.one_of(st.sampled_from(NASTY), st.just(EVIL), st.text(_CHARACTERS, max_size=8)), max_size=4).map(
        "".join
    ),
)
_WORD = TEXT.filter(bool)
_JSON = st.recursive(
    st.one_of(TEXT, st.integers(-(10**20), 10**20), st.booleans(), st.none(), st.floats(allow_nan=False, width=32)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXT, inner, max_size=3)),
    max_leaves=5,
)
_FLAG_NAMES = st.one_of(
    st.from_regex(r"\Ax[a-z0-9-]{0,8}\Z"),
    st.sampled_from(
        ["attention-backend", "shutdown-timeout", "api-server-count", "all2all-backend", "seed", "enforce-eager"]
    ),
)
_FLAGS = st.dictionaries(_FLAG_NAMES, _JSON, max_size=3)
_ENV = st.dictionaries(
    st.one_of(
        st.from_regex(r"\A[VX]_[A-Za-z0-9_]{0,8}\Z"), st.sampled_from(["HF_HUB_OFFLINE", "UCX_TLS", "A", "EVIL"])
    ),
    TEXT,
    max_size=4,
)
_LABEL = st.from_regex(r"\A[a-z]([a-z0-9-]{0,20}[a-z0-9])?\Z")
_QUALIFIED = st.from_regex(r"\A([a-z][a-z0-9]{0,8}\.[a-z]{1,6}/)?[A-Za-z0-9]([A-Za-z0-9_.-]{0,20}[A-Za-z0-9])?\Z")
_LABEL_VALUE = st.one_of(
    st.from_regex(r"\A[A-Za-z0-9]([A-Za-z0-9_.-]{0,20}[A-Za-z0-9])?\Z"),
    st.sampled_from(["", "true", "1", "1e3", "0o17", "null", "no", "1.0"]),
)
_QUANTITY = st.from_regex(r"\A[1-9][0-9]{0,4}([kMGT]|[KMGT]i)?\Z")
_IMAGE = st.sampled_from(["a", "r.io:5000/a/b-c:1e3", "a/b@sha256:" + "0" * 64, "localhost/x:0.1", "1e3:017"])


def _given(**fields: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """Any part of these fields: a recipe leaves most to their defaults."""
    return st.fixed_dictionaries({}, optional=fields)


@st.composite
def _pool(draw: st.DrawFn, *, is_cpu: bool, max_nodes: int) -> dict[str, Any]:
    nodes = 1 if is_cpu else draw(st.integers(1, max_nodes))
    dp_local, tp_size = draw(st.integers(1, 4)), draw(st.sampled_from([1, 2]))
    dp_size = nodes * dp_local
    return {
        "replicas": draw(st.integers(1, 3)),
        "nodes": nodes,
        "gpus_per_node": 0 if is_cpu else dp_local * tp_size,
        "dp_size": dp_size,
        "tp_size": tp_size,
        "expert_parallel": dp_size * tp_size > 1 and draw(st.booleans()),
        "load_balancing": draw(st.sampled_from([None, None, None, "hybrid", "internal", "external"])),
        "flags": draw(_FLAGS),
        "env": draw(_ENV),
    }


_EFFECT = st.sampled_from([None, "NoSchedule", "PreferNoSchedule", "NoExecute"])
_TOLERATION = st.one_of(
    st.fixed_dictionaries({"effect": _EFFECT}),
    st.fixed_dictionaries({"key": _QUALIFIED, "effect": _EFFECT}, optional={"value": _LABEL_VALUE}),
)
_CLUSTER = _given(
    namespace=_LABEL,
    image=_IMAGE,
    gateway_image=_IMAGE,
    registry=st.sampled_from(["r.io", "mirror:5000/x", "1e3"]),
    image_pull_secrets=st.lists(_LABEL, max_size=2, unique=True),
    gateway_replicas=st.integers(1, 5),
    hf_secret=_given(name=_LABEL, key=st.sampled_from(["HF_TOKEN", "A", "_1"])),
    network_interface=st.sampled_from(["eth0", "1e3", "017", "net.1"]),
    rdma_resource=_QUALIFIED,
    rdma_devices_per_node=st.integers(1, 16),
    shared_memory=_QUANTITY,
    cpu=_QUANTITY,
    memory=_QUANTITY,
    node_selector=st.dictionaries(_QUALIFIED, _LABEL_VALUE, max_size=3),
    tolerations=st.lists(_TOLERATION, max_size=2),
    monitoring_namespace=st.one_of(st.none(), _LABEL),
    model_cache=_given(
        claim=_LABEL,
        create=st.booleans(),
        size=_QUANTITY,
        storage_class=_LABEL,
        read_bytes_per_s=st.integers(1, 10**12),
    ),
).map(lambda given: {"rdma_devices_per_node": 1, **given} if "rdma_resource" in given else given)


@st.composite
def recipes(draw: st.DrawFn, *, accelerators: Sequence[str] = ("cpu", "h200", "gb200"), max_nodes: int = 3) -> Recipe:
    """Any recipe that is valid by itself; which of them a target takes is the target's to say."""
    accelerator = draw(st.sampled_from(accelerators))
    is_cpu = accelerator == "cpu"
    model = {
        "name": draw(_WORD), "aliases": draw(st.lists(TEXT, max_size=2)), "dtype": "bfloat16", "max_model_len": 2048,
        "path": f"/model-cache/{draw(st.one_of(st.just('m'), st.sampled_from(NASTY).filter(bool)))}",
        **draw(st.sampled_from([{}, {"repo": "a/b", "revision": "0" * 40}])),
    }  # fmt: skip
    return Recipe.model_validate(
        {
            "baton": 1,
            "name": draw(st.from_regex(r"\A[a-z]([a-z0-9-]{0,12}[a-z0-9])?\Z")),
            "description": draw(TEXT),
            "run_on": draw(st.lists(TEXT, max_size=2)),
            "model": model,
            "engine": {"version": "0.32.0", "flags": draw(_FLAGS), "env": draw(_ENV)},
            "hardware": {
                "accelerator": accelerator,
                "fabric": draw(st.sampled_from(["none", "infiniband", "roce", "efa", "nvlink"])),
            },
            "kv_transfer": {
                "connector": draw(st.one_of(st.just("NixlConnector"), TEXT)),
                "buffer_device": "cpu" if is_cpu else "cuda",
                "extra": draw(st.dictionaries(TEXT, _JSON, max_size=2)),
            },
            "roles": {role: draw(_pool(is_cpu=is_cpu, max_nodes=max_nodes)) for role in ("prefill", "decode")},
            "gateway": draw(_given(port=st.integers(1, 65535), request_timeout_s=st.floats(1, 1e4))),
            "cluster": draw(_CLUSTER),
            "test": draw(_given(prompt=_WORD)),
        }
    )
