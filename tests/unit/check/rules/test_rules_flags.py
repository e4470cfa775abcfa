"""Rules on names and values: flags, keys of configs and variables, in releases that have them and that lack them."""

from collections.abc import Iterator
from itertools import islice, pairwise

import pytest

from baton.catalogue import history
from baton.catalogue.engine import EngineCatalogue, Flag
from baton.check.bundle import of_sources
from baton.check.commands import versions
from baton.check.facts import json_text
from baton.check.finding import Edit, Finding, Harm
from baton.check.run import check, harm_of
from baton.check.text import Source

NEWEST = "0.33.0"


def found(text: str, code: str = "", name: str = "file.sh", engine: str | None = None) -> list[Finding]:
    report = check(of_sources([Source(name, text)], engine=engine))
    return [f for f in report.findings if f.code == code or not code]


def serve(arguments: str, release: str = "0.32.0", env: str = "") -> str:
    given = "".join(f" -e {one}" for one in env.split())
    return f"#!/bin/bash\ndocker run{given} vllm/vllm-openai:v{release} --model m {arguments}\n"


def pod(
    arguments: str, env: str = "[]", image: str = "vllm/vllm-openai:v0.32.0", program: str = "vllm, serve, m"
) -> str:
    return (
        "apiVersion: v1\nkind: Pod\nmetadata: {name: engine}\nspec:\n  containers:\n    - name: engine\n"
        f"      image: {image}\n      command: [{program}]\n      args: [{arguments}]\n      env: {env}\n"
    )


def applied(text: str, edits: list[Edit]) -> str:
    for edit in sorted(set(edits), key=lambda e: -e.span.start):
        text = text[: edit.span.start] + edit.text + text[edit.span.end :]
    return text


def fixed(text: str, finding: Finding) -> str:
    assert finding.fix is not None
    assert finding.fix.edits, finding.fix.words
    return applied(text, list(finding.fix.edits))


FLAGS = [
    # arguments, release, code, words of the message, words of the fix
    ("--max-model-length 8", "0.32.0", "unknown-flag", "no flag --max-model-length", "did you mean --max-model-len?"),
    ("--no-enabel-prefix-caching", "0.32.0", "unknown-flag", "", "did you mean --no-enable-prefix-caching?"),
    ("--num-scheduler-steps 8", "0.32.0", "unknown-flag", "no flag --num-scheduler-steps", ""),
    ("--swap-space 16", "0.32.0", "removed-flag", "no flag --swap-space any more", "remove --swap-space"),
    ("--num-redundant-experts 32", "0.12.0", "removed-flag", "", "--eplb-config.num_redundant_experts"),
    ("--disable-log-requests", "0.32.0", "removed-flag", "", "--no-enable-log-requests"),
    ("--moe-backend auto", "0.13.0", "flag-too-new", "has no flag --moe-backend yet", "run 0.17.1 or later"),
    ("--attention-backend FLASHINFER_MLA", "0.11.0", "flag-too-new", "", "VLLM_ATTENTION_BACKEND"),
    ("--num-redundant-experts 32", "0.11.0", "deprecated-flag", "", "--eplb-config.num_redundant_experts"),
    ("--max-num 16", "0.32.0", "ambiguous-flag", "could be --max-num-active-seqs", "in full"),
    ("--tensor-parallel 8", "0.32.0", "abbreviated-flag", "short for --tensor-parallel-size", "--tensor-parallel-size"),
    ("--no-enable-prefix-cach", "0.11.0", "abbreviated-flag", "short for --no-enable-prefix-caching", ""),
    ("--max-num-seqs many", "0.32.0", "bad-value", "refuses --max-num-seqs many", ""),
    ("--max-model-len 1.5K", "0.32.0", "bad-value", "refuses --max-model-len 1.5K", ""),
    ("--kv-cache-dtype fp8_e4m4", "0.32.0", "bad-value", "", "did you mean fp8_e4m3?"),
    ("--all2all-backend nixl_ep", "0.12.0", "bad-value", "refuses --all2all-backend nixl_ep", ""),
    ("--enforce-eager=true", "0.32.0", "bad-value", "takes no value", "write --enforce-eager"),
    ("--enable-prefix-caching=false", "0.32.0", "bad-value", "", "write --no-enable-prefix-caching"),
    ("--max-num-seqs", "0.32.0", "missing-value", "--max-num-seqs has no value", ""),
    ("--compilation-config.mode --enforce-eager", "0.32.0", "missing-value", "", ""),
    ("--served-model-name --enforce-eager", "0.32.0", "missing-value", "", ""),
    ("--enforce-eager true", "0.32.0", "stray-argument", "'true' belongs to no flag", "remove true"),
    ("--enable-prefix-caching false", "0.32.0", "stray-argument", "", "write --no-enable-prefix-caching"),
    ("--max-num-seqs 8 16 32", "0.32.0", "stray-argument", "'32' belongs to no flag", ""),
    ("--max-num-seqs 8 --max-num-seqs 16", "0.32.0", "repeated-flag", "given again", ""),
    ("--enforce-eager --no-enforce-eager", "0.32.0", "repeated-flag", "--enforce-eager is given again", ""),
    ("--compilation-config.mode 3 --compilation-config '{\"level\":3}'", "0.32.0", "lost-config", "lost: level", ""),
    ("--eplb-config {\"window_size\":1}", "0.32.0", "bad-json", "--eplb-config takes JSON", "write '{"),
    ("--eplb-config \"{'use_async': True}\"", "0.32.0", "bad-json", "", "write '{\"use_async\": true}'"),
    ("--eplb-config '[1]'", "0.32.0", "bad-json", "no JSON object", ""),
    ("--limit-mm-per-prompt image=1", "0.32.0", "bad-json", "--limit-mm-per-prompt takes JSON", ""),
    ("--eplb-config '{\"windows_size\":1}'", "0.32.0", "unknown-json-key", "no key windows_size", "window_size"),
    ("--eplb-config.windows_size 1", "0.32.0", "unknown-json-key", "no key windows_size", "window_size"),
    ("--compilation-config.pass-config.enable_sp true", "0.32.0", "unknown-json-key", "pass-config", "pass_config"),
    ("--compilation-config.level 3", "0.32.0", "unknown-json-key", "no key level", "--compilation-config.mode"),
    ("--eplb-config.window_size many", "0.32.0", "bad-json-value", "'many' for --eplb-config.window_size", ""),
    ("--compilation-config.cudagraph_mode FULL_DECOD", "0.32.0", "bad-json-value", "'FULL_DECOD'", "FULL_DECODE_ONLY"),
    ("--eplb-config '{\"window_size\":1.5}'", "0.32.0", "bad-json-value", "", ""),
    ("--eplb-config '{\"window_size\":null}'", "0.32.0", "bad-json-value", "", ""),
    ("--kv-transfer-config '{\"kv_role\":\"both\"}'", "0.32.0", "bad-json-value", "'both'", "kv_both"),
]  # fmt: skip


@pytest.mark.parametrize(("arguments", "release", "code", "message", "fix"), FLAGS)
def test_a_faulty_command_line_is_found(arguments: str, release: str, code: str, message: str, fix: str) -> None:
    text = serve(arguments, release)
    hits = found(text, code)
    assert hits, [f"{f.code}: {f.message}" for f in found(text)]
    assert any(message in f.message and f.fix is not None and fix in f.fix.words for f in hits), hits


QUIET = [
    ("--max_model_len 8k --tensor_parallel_size=8", "0.32.0"),
    ("--swap-space 16", "0.11.0"),
    ("--max-model-len $LENGTH", "0.32.0"),
    ("--max-num-seqs 16 $EXTRA true", "0.32.0"),
    ("--served-model-name a b c", "0.32.0"),
    ("--max-num-seqs -5", "0.32.0"),
    ("--max-num-seqs 16 --max-num-seqs 16", "0.32.0"),
    ("--compilation-config.mode 3 --compilation-config.cudagraph_mode FULL", "0.32.0"),
    ("--compilation-config '{\"cudagraph_mode\":\"full_decode_only\"}'", "0.32.0"),
    ("--compilation_config.custom_ops+=+rms_norm,+rotary_embedding", "0.32.0"),
    ("--eplb-config '{\"window_size\":\"1000\",\"log_balancedness\":\"False\"}'", "0.32.0"),
    ("--kv-transfer-config '{\"kv_connector_extra_config\":{\"any\":{\"thing\":1}}}'", "0.32.0"),
    ("--kv-transfer-config None", "0.32.0"),
    ("--hf-overrides '{\"a\":{\"b\":1}}'", "0.32.0"),
    ("--speculative-config '{\"num-speculative-tokens\":1,\"method\":\"mtp\"}'", "0.32.0"),
    ("-O3 -tp 8", "0.32.0"),
    ("-O 3", "0.11.0"),
    ("-O.cudagraph_mode=FULL --help", "0.32.0"),
    ("--compilation-config $JSON --compilation-config.mode 3", "0.32.0"),
    ("--kv-cache-dtype fp8 --dtype auto --moe-backend FLASHINFER-CUTLASS", "0.32.0"),
    ("--limit-mm-per-prompt '{\"image\":1}' --enforce-eager --no-enable-prefix-caching", "0.32.0"),
]  # fmt: skip
NAMES_AND_VALUES = {code for *_, code, _, _ in FLAGS}


@pytest.mark.parametrize(("arguments", "release"), QUIET)
def test_a_command_line_that_the_parser_takes_is_left_alone(arguments: str, release: str) -> None:
    wrong = [f"{f.code}: {f.message}" for f in found(serve(arguments, release)) if f.code in NAMES_AND_VALUES]
    assert not wrong


def test_an_old_key_is_dropped_silently_by_old_releases_and_refused_by_new_ones() -> None:
    given = '--kv-transfer-config \'{"kv_connector":"NixlConnector","kv_role":"kv_both","kv_rolle":1}\''
    harms = [
        harm_of(f)
        for release in ("0.12.0", "0.15.1", "0.16.0")
        for f in found(serve(given, release), "unknown-json-key")
    ]
    assert harms == [Harm.WASTED, Harm.WASTED, Harm.NOT_STARTING]
    compilation = '--compilation-config \'{"pass_config":{"enabel_noop":true}}\''
    harms = [
        harm_of(f) for release in ("0.12.0", "0.13.0") for f in found(serve(compilation, release), "unknown-json-key")
    ]
    assert harms == [Harm.WASTED, Harm.NOT_STARTING]


def test_a_key_is_pointed_at_inside_its_json() -> None:
    text = serve('--compilation-config \'{"cudagraph_mode":"FULL","pass_config":{"enable_noop":true}}\'')
    (finding,) = found(text, "unknown-json-key")
    assert finding.span.written == "enable_noop"
    assert '"pass_config":{"eliminate_noops":true}' in fixed(text, finding)


def test_only_the_outermost_unknown_key_is_told() -> None:
    text = serve('--compilation-config \'{"pass_confik":{"a":1,"b":{"c":2}}}\' --eplb-config.a.b.c 1')
    assert [f.span.written for f in found(text, "unknown-json-key")] == ["pass_confik", "a"]


@pytest.mark.parametrize("image", ["vllm/vllm-openai:latest", "registry.example/own-build:v3"])
def test_nothing_is_claimed_of_an_image_that_says_no_release(image: str) -> None:
    env = "[{name: VLLM_NOT_EVEN_ONE, value: x}, {name: VLLM_MOE_DP_CHUNK_SIZE, value: '8'}]"
    text = pod('--frobnicate, "1", --swap-space, "16"', env, image)
    mine = {f.code: harm_of(f) for f in found(text, name="file.yaml")}
    expected = dict.fromkeys(
        ("unknown-flag", "removed-flag", "unknown-env", "removed-env", "engine-version"), Harm.UNKNOWN
    )
    assert mine.items() >= expected.items()
    assert not [f for f in found(text, name="file.yaml") if f.code in expected and f.fix and f.fix.edits]


def test_a_release_given_by_the_person_decides() -> None:
    text = "#!/bin/bash\nvllm serve m --swap-space 16\n"
    assert [harm_of(f) for f in found(text, "removed-flag")] == [Harm.UNKNOWN]
    assert [harm_of(f) for f in found(text, "removed-flag", engine="vllm-0.32.0")] == [Harm.NOT_STARTING]
    assert not found(text, "removed-flag", engine="vllm-0.11.0")
    assert not found(text, "engine-version", engine="vllm-0.11.0")


def test_an_unknown_release_is_told_once_for_each_place_that_should_say_it() -> None:
    text = "#!/bin/bash\nvllm serve a --port 1\nvllm serve b --port 2\n"
    (finding,) = found(text, "engine-version")
    assert "0.11.0 to 0.33.0" in finding.message
    (other,) = found(pod("--port, '1'", image="vllm/vllm-openai:v0.17.0"), "engine-version", "file.yaml")
    assert other.message == "vllm 0.17.0 is not in the catalogue: checked as 0.17.1"


DYNAMO = "nvcr.io/nvidia/ai-dynamo/vllm-runtime:"


@pytest.mark.parametrize(
    ("release", "arguments", "code"),
    [
        ("0.8.0", "--disaggregation-mode, prefill", "flag-too-new"),
        ("1.0.2", "--disaggregation-mode, prefill", None),
        ("1.0.2", "--is-prefill-worker", "deprecated-flag"),
        ("1.6.1", "--is-prefill-worker", "removed-flag"),
        ("1.6.1", "--max_num_seqs, '8'", None),
        ("1.6.1", "--tensor-parallel, '8'", "abbreviated-flag"),
        ("1.6.1", "--host, h", "unknown-flag"),
        ("1.6.1", "m", "stray-argument"),
    ],
)
def test_dynamo_takes_its_own_flags_and_hands_the_rest_to_vllm(release: str, arguments: str, code: str | None) -> None:
    text = pod(f"--model, m, {arguments}", image=f"{DYNAMO}{release}", program="python3, -m, dynamo.vllm")
    mine = {f.code for f in found(text, name="file.yaml")} & NAMES_AND_VALUES
    assert mine == ({code} if code else set())


def test_a_switch_of_old_dynamo_stands_for_the_value_of_the_new_flag() -> None:
    text = pod("--model, m, --disaggregation-mode, prefill", image=f"{DYNAMO}0.8.0", program="python3, -m, dynamo.vllm")
    (finding,) = found(text, "flag-too-new", "file.yaml")
    assert "args: [--model, m, --is-prefill-worker]" in fixed(text, finding)
    joined = text.replace("--disaggregation-mode, prefill", "--disaggregation-mode=prefill")
    assert "args: [--model, m, --is-prefill-worker]" in fixed(joined, found(joined, "flag-too-new", "file.yaml")[0])


def test_lost_json_of_one_key_becomes_a_dotted_key() -> None:
    dotted = "--compilation-config.pass_config.fuse_norm_quant=true"
    text = pod(f'--compilation-config, \'{{"cudagraph_mode":"FULL_DECODE_ONLY"}}\', {dotted}')
    (finding,) = found(text, "lost-config", "file.yaml")
    after = fixed(text, finding)
    assert "--compilation-config.cudagraph_mode, 'FULL_DECODE_ONLY', --compilation-config.pass_config" in after
    assert not found(after, "lost-config", "file.yaml")


def test_api_server_never_reads_a_model_without_its_flag() -> None:
    text = "#!/bin/bash\npip install vllm==0.32.0\npython3 -m vllm.entrypoints.openai.api_server org/model\n"
    (finding,) = found(text, "stray-argument")
    assert harm_of(finding) is Harm.NOT_SERVING
    assert "--model=org/model" in fixed(text, finding)


ENV = [
    # variable, release, code, words of the message, words of the fix
    ("VLLM_USE_DEEPGEMM=1", "0.32.0", "unknown-env", "no release of vLLM reads", "did you mean VLLM_USE_DEEP_GEMM?"),
    ("VLLM_MOE_DP_CHUNK_SIZE=8", "0.32.0", "removed-env", "so it does nothing", "remove VLLM_MOE_DP_CHUNK_SIZE"),
    ("VLLM_ALL2ALL_BACKEND=pplx", "0.32.0", "removed-env", "", "write --all2all-backend instead"),
    ("VLLM_GPU_SYNC_CHECK=warn", "0.11.0", "env-too-new", "does not read VLLM_GPU_SYNC_CHECK yet", "or later"),
    ("VLLM_WORKER_MULTIPROC_METHOD=spwan", "0.32.0", "bad-env-value", "=spwan", "did you mean spawn?"),
    ("VLLM_PORT=tcp://10.0.0.1:8000", "0.32.0", "bad-env-value", "VLLM_PORT=tcp", "plain number"),
    ("VLLM_USE_FLASHINFER_MOE_FP8=1", "0.22.1", "deprecated-env", "is deprecated in vLLM 0.22.1", "--moe-backend"),
]  # fmt: skip
ENV_CODES = {code for _, _, code, _, _ in ENV}


@pytest.mark.parametrize(("variable", "release", "code", "message", "fix"), ENV)
def test_a_faulty_variable_is_found(variable: str, release: str, code: str, message: str, fix: str) -> None:
    (finding,) = (f for f in found(serve("", release, variable)) if f.code in ENV_CODES)
    assert finding.code == code
    assert message in finding.message
    assert finding.fix is not None
    assert fix in finding.fix.words


@pytest.mark.parametrize(
    ("variable", "release"),
    [
        ("VLLM_LOGGING_LEVEL=INFO", "0.32.0"),
        ("NCCL_NOBODY_KNOWS=1", "0.32.0"),
        ("VLLM_ASCEND_X=1", "0.32.0"),
        ("VLLM_MOE_DP_CHUNK_SIZE=8", "0.19.1"),
    ],
)
def test_a_variable_that_is_read_or_not_vllms_is_left_alone(variable: str, release: str) -> None:
    assert not [f for f in found(serve("", release, variable)) if f.code in ENV_CODES]


def test_a_variable_exported_for_two_launches_is_told_once_and_one_that_the_script_uses_is_its_own() -> None:
    head = "#!/bin/bash\npip install vllm==0.32.0\nexport VLLM_MODEL_DIR=/models\nexport VLLM_MOE_DP_CHUNK_SIZE=8\n"
    text = f"{head}vllm serve $VLLM_MODEL_DIR/a --port 1 &\nvllm serve $VLLM_MODEL_DIR/b --port 2\n"
    (finding,) = (f for f in found(text) if f.code in ENV_CODES)
    assert finding.span.written == "VLLM_MOE_DP_CHUNK_SIZE=8"
    assert "export VLLM_MOE" not in fixed(text, finding)


def test_a_variable_of_a_manifest_is_taken_out_with_its_lines() -> None:
    env = "\n        - name: VLLM_MOE_DP_CHUNK_SIZE\n          value: '8'\n        - name: OTHER\n          value: x"
    text = pod("--port, '1'", env)
    (finding,) = found(text, "removed-env", "file.yaml")
    assert finding.span.written == "VLLM_MOE_DP_CHUNK_SIZE"
    assert fixed(text, finding) == pod("--port, '1'", "\n        - name: OTHER\n          value: x")


def test_a_variable_with_an_odd_name_breaks_nothing() -> None:
    text = pod("--port, '1'", "[{name: 'VLLM_((', value: x}]")
    assert [f.code for f in found(text, name="file.yaml") if f.code in {*ENV_CODES, "internal-error"}] == [
        "unknown-env"
    ]


def test_what_dynamo_reads_is_never_called_unknown() -> None:
    env = "[{name: DYN_NOBODY_KNOWS, value: x}]"
    text = pod("--model, m", env, f"{DYNAMO}1.6.1", "python3, -m, dynamo.vllm")
    assert not [f for f in found(text, name="file.yaml") if f.code in ENV_CODES]


SERVICE = "\n---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{ports: [{{port: 80}}]{more}}}\n"


@pytest.mark.parametrize(
    ("name", "more", "env", "is_told"),
    [
        ("vllm", "", "[]", True),
        ("vllm-nixl-side-channel", "", "[]", True),
        ("vllm-server", "", "[]", False),
        ("vllm", ", clusterIP: None", "[]", False),
        ("vllm", "", "[{name: VLLM_PORT, value: '9000'}]", False),
        ("vllm", "", "[]\n  enableServiceLinks: false", False),
    ],
)
def test_a_service_that_overwrites_a_variable(name: str, more: str, env: str, is_told: bool) -> None:
    text = pod("--port, '1'", env) + SERVICE.format(name=name, more=more)
    assert bool(found(text, "service-env", "file.yaml")) is is_told


def test_a_broken_script_is_a_fault_in_a_container_and_no_fault_in_prose() -> None:
    broken = pod("", program="bash, -c, 'vllm serve m --port $(echo 1'").replace("args: []", "args: []")
    assert found(broken, "syntax", "file.yaml")
    prose = 'kind: ConfigMap\napiVersion: v1\nmetadata: {name: a}\ndata: {note: "use (vllm serve m"}\n'
    assert not found(prose, "syntax", "file.yaml")
    assert found("#!/bin/bash\nif true; then vllm serve m\n", "syntax")
    assert not found("# readme\n\n```bash\nvllm serve <your model (here>\n```\n", "syntax", "README.md")


@pytest.mark.parametrize(
    "text", ["", "{", "[]", '{"a"', '{"a":1,}', "{'a':1}", "1", '{"a":' * 2000, "[" * 99999, '{"a":NaN}', "\x00"]
)
def test_json_places_never_break(text: str) -> None:
    assert len(json_text.members(Source("a", text).whole())) == (1 if "NaN" in text else 0)


def test_json_places() -> None:
    text = Source("a", ' { "a" : {"b\\n": [1, {"c": 2}]} , "d":"x" } ').whole()
    shown = [(m.path, m.key.value, m.value.value, m.value.span().written) for m in json_text.members(text)]
    assert shown == [
        (("a",), "a", '{"b\\n": [1, {"c": 2}]}', '{"b\\n": [1, {"c": 2}]}'),
        (("a", "b\n"), "b\\n", '[1, {"c": 2}]', '[1, {"c": 2}]'),
        (("d",), "d", '"x"', '"x"'),
    ]


def _value(flag: Flag) -> str:
    """A value that a flag takes."""
    if flag.bare or (flag.type == "bool" and flag.negation):
        return ""
    if flag.choices:
        return str(flag.choices[0])
    return {"config": "{}", "json": "{}", "str": "auto"}.get(flag.type, "1")


def _removed(catalogues: tuple[EngineCatalogue, ...]) -> Iterator[tuple[str, str]]:
    """Command lines with a flag that a release lacks, though one before it has it."""
    for older, newer in pairwise(catalogues):
        for name in sorted(older.flags.keys() - newer.flags.keys()):
            yield newer.version, f"{name} {_value(older.flags[name])}".strip()


def _too_new(catalogues: tuple[EngineCatalogue, ...]) -> Iterator[tuple[str, str]]:
    for older, newer in pairwise(catalogues):
        for name in sorted(newer.flags.keys() - older.flags.keys()):
            yield older.version, f"{name} {_value(newer.flags[name])}".strip()


def _misspelt(catalogues: tuple[EngineCatalogue, ...]) -> Iterator[tuple[str, str]]:
    """Every flag with two letters exchanged."""
    for at, catalogue in enumerate(catalogues):
        for name, flag in islice(sorted(catalogue.flags.items()), at % 7, None, 7):
            if len(name) > 9:
                yield catalogue.version, f"{name[:6]}{name[7]}{name[6]}{name[8:]} {_value(flag)}".strip()


def _faults(text: str) -> dict[tuple[str, str], Finding]:
    return {(f.code, f.message): f for f in found(text) if harm_of(f) <= Harm.FRAGILE}


@pytest.mark.parametrize("lines", [_removed, _too_new, _misspelt])
def test_what_a_flags_fix_makes_checks_clean(lines: object) -> None:
    """Over the whole catalogue: with the edits made, the finding is gone and no other fault of names has come.

    A flag that is spelt right may well be deprecated, or lack another flag that it needs.
    """
    assert callable(lines)
    cases = list(lines(versions.candidates("vllm")))
    num_edited = 0
    for release, arguments in cases:
        text = serve(arguments, release)
        before = _faults(text)
        own = [f for (code, _), f in before.items() if code in NAMES_AND_VALUES and f.fix is not None and f.fix.edits]
        if own:
            after = _faults(applied(text, [e for f in own for e in (f.fix.edits if f.fix else ())]))
            mended = {(f.code, f.message) for f in own}
            new = {key for key in after if key in mended or key not in before}
            assert not {code for code, _ in new} & NAMES_AND_VALUES - {"deprecated-flag"}, (text, new)
            num_edited += 1
    assert len(cases) > 20
    assert num_edited > 0.6 * len(cases), f"{num_edited} of {len(cases)}"


def test_what_a_variables_fix_makes_checks_clean() -> None:
    catalogues = versions.candidates("vllm")
    num_edited = 0
    for older, newer in pairwise(catalogues):
        gone = [(newer.version, name) for name in sorted(older.envs.keys() - newer.envs.keys())]
        slips = [
            (newer.version, f"{name}S")
            for name in islice(sorted(newer.envs), 0, None, 9)
            if name + "S" not in newer.envs
        ]
        for release, name in [*gone, *slips]:
            if not name.startswith("VLLM_"):
                continue
            env = f"\n        - name: {name}\n          value: '1'\n        - name: OTHER\n          value: x"
            text = pod("--port, '1'", env, f"vllm/vllm-openai:v{release}")
            (finding,) = (f for f in found(text, name="file.yaml") if f.code in ("removed-env", "unknown-env"))
            if finding.fix is not None and finding.fix.edits:
                after = {f.code for f in found(fixed(text, finding), name="file.yaml")} & ENV_CODES
                assert after <= {"deprecated-env", "bad-env-value"}, (release, name, after)
                num_edited += 1
    assert num_edited > 300


def test_every_replacement_is_offered_where_it_holds() -> None:
    """Every hand-kept replacement of a flag or variable ends in a finding in the release that lost the name."""
    catalogues = versions.candidates("vllm")
    for known in history.replacements():
        if known.engine != "vllm" or known.kind not in ("flag", "env"):
            continue
        life = (history.of_flag if known.kind == "flag" else history.of_env)(catalogues, known.name)[-1]
        assert life.until is not None, known.name
        flag = next((c.flags[known.name] for c in reversed(catalogues) if known.name in c.flags), None)
        text = serve(f"{known.name} {_value(flag)}", NEWEST) if flag else serve("", NEWEST, f"{known.name}=1")
        (finding,) = found(text, "removed-flag" if known.kind == "flag" else "removed-env")
        assert finding.fix is not None
        assert known.by in finding.fix.words or known.by == ""
