"""Rules about prefill and decode together: connectors, roles, what both must agree on, who routes, who sees what.

Each row is a pair with a few words changed, and what must be said of it: code and harm, or nothing of that rule.
"""

from __future__ import annotations

import json

import pytest

from baton.check.bundle import of_sources
from baton.check.finding import Finding
from baton.check.rule import rule
from baton.check.text import Source

KV = {"kv_connector": "NixlConnector"}
NIXL = {"prefill": {**KV, "kv_role": "kv_producer"}, "decode": {**KV, "kv_role": "kv_consumer"}}
EVENTS = """--kv-events-config={"enable_kv_cache_events":true,"publisher":"zmq","endpoint":"tcp://*:20080"}"""


def found(code: str, text: str, name: str = "file.yaml") -> list[Finding]:
    return list(rule(code).check(of_sources([Source(name, text)])))


def harms(code: str, text: str, name: str = "file.yaml") -> list[str]:
    return [(f.harm if f.harm is not None else rule(code).harm).name.lower() for f in found(code, text, name)]


def kv(side: str, **changed: object) -> str:
    return "--kv-transfer-config=" + json.dumps({k: v for k, v in {**NIXL[side], **changed}.items() if v is not None})


def component(name: str, kind: str, image: str, words: list[str], rest: str = "") -> str:
    listed = "".join(f"\n                - {json.dumps(word)}" for word in words)
    return f"""\
    - name: {name}
      type: {kind}
      {rest}
      podTemplate:
        spec:
          containers:
            - name: main
              image: {image}
              command: [python3, -m, {"dynamo.frontend" if kind == "frontend" else "dynamo.vllm"}]
              args:{listed or " []"}
"""


def graph(*components: str) -> str:
    head = "apiVersion: nvidia.com/v1beta1\nkind: DynamoGraphDeployment\nmetadata: {name: g}\nspec:\n  components:\n"
    return head + "".join(components)


def dynamo(version: str, prefill: list[str] | None, decode: list[str] | None, door: list[str] | None = None) -> str:
    image = f"nvcr.io/nvidia/ai-dynamo/vllm-runtime:{version}" if version else "example.org/team/engine:main"
    parts = [component("frontend", "frontend", image, door)] if door is not None else []
    for side, words in (("prefill", prefill), ("decode", decode)):
        if words is not None:
            parts.append(component(side, side, image, ["--model=/models/qwen", *words]))
    return graph(*parts)


def pair(prefill: str = "", decode: str = "", version: str = "v0.32.0", other: str | None = None) -> str:
    """Two plain engines of one script."""
    lines = ["#!/bin/bash"]
    for side, words, image in (("prefill", prefill, version), ("decode", decode, other or version)):
        model = "" if "--model" in words else "--model /models/qwen"
        config = "" if "--kv-transfer-config" in words else f"'{kv(side)}'"
        lines.append(f"docker run vllm/vllm-openai:{image} {model} {words} {config} &")
    return "\n".join(lines) + "\n"


def pod(name: str, words: list[str], env: str = "", version: str = "v0.32.0") -> str:
    return f"""\
apiVersion: v1
kind: Pod
metadata: {{name: {name}}}
spec:
  containers:
    - name: engine
      image: vllm/vllm-openai:{version}
      args: {json.dumps(["--model=/models/qwen", *words])}
      {env}
"""


MODE_P, MODE_D = "--disaggregation-mode=prefill", "--disaggregation-mode=decode"


@pytest.mark.parametrize(
    ("version", "prefill", "decode", "said"),
    [
        ("1.6.1", [MODE_P, kv("prefill")], [MODE_D, kv("decode")], []),
        ("1.6.1", [MODE_P], [MODE_D, kv("decode")], ["not_starting"]),
        ("1.6.1", [MODE_P, kv("prefill")], [MODE_D], ["not_serving"]),
        ("1.6.1", [MODE_P], [MODE_D], ["not_starting"]),
        ("1.0.2", ["--is-prefill-worker"], [], ["not_starting"]),
        ("0.8.1", ["--is-prefill-worker"], [], []),
        ("", ["--is-prefill-worker"], [], ["fragile"]),
        ("1.3.0", [MODE_P], [MODE_D, kv("decode")], ["not_starting"]),
        ("1.4.0-own-build.1", [MODE_P], [MODE_D, kv("decode")], ["fragile"]),
        ("", [MODE_P, kv("prefill")], [MODE_D], ["not_serving"]),
        ("", [MODE_P, kv("prefill"), "--connector", "none"], [MODE_D], []),
        ("1.6.1", [MODE_P, "{{ .Values.more }}", kv("prefill")], ["{{ .Values.more }}", MODE_D], []),
        ("1.6.1", [MODE_P, kv("prefill", kv_connector="MooncakeConnector")], [MODE_D, kv("decode")], ["not_serving"]),
        ("1.6.1", [MODE_P, kv("prefill", kv_connector="MultiConnector")], [MODE_D, kv("decode")], []),
    ],
)
def test_a_pair_of_dynamo_workers_has_one_connector(
    version: str, prefill: list[str], decode: list[str], said: list[str]
) -> None:
    assert harms("kv-connector", dynamo(version, prefill, decode)) == said


def test_pods_called_prefill_and_decode_without_a_connector_pay_the_prompt_twice() -> None:
    both = pod("qwen-prefill", []) + "---\n" + pod("qwen-decode", [])
    assert [f.message for f in found("kv-connector", both)] == [
        "neither side has a KV connector: pods are green, and decode computes again every prompt that prefill computed"
    ]
    half = pod("qwen-prefill", [kv("prefill")]) + "---\n" + pod("qwen-decode", [])
    assert [f.span.line for f in found("kv-connector", half)] == [18]
    assert not found("kv-connector", pod("qwen-decode", []))
    assert not found("kv-connector", pod("a", []) + "---\n" + pod("b", []))


def test_the_two_templates_of_an_inference_service_are_a_pair() -> None:
    template = "template: {containers: [{name: main, image: 'vllm/vllm-openai:v0.32.0', args: ['--model=/m'%s]}]}"
    text = f"""\
apiVersion: serving.kserve.io/v1alpha1
kind: LLMInferenceService
metadata: {{name: qwen}}
spec:
  {template % ""}
  prefill:
    {template % ""}
"""
    assert harms("kv-connector", text) == ["not_serving"]
    assert not found("kv-connector", text.replace("  prefill:", "  worker:"))


def test_a_connector_of_ones_own_is_known_by_its_module() -> None:
    own = kv("decode", kv_connector="OurConnector")
    assert harms("kv-connector", pod("a", [own])) == ["not_starting"]
    assert not found("kv-connector", pod("a", [kv("decode", kv_connector="Ours", kv_connector_module_path="our.kv")]))
    assert not found("kv-connector", pod("a", ["--kv-transfer-config={not json"]))
    gone = pod("a", [kv("decode", kv_connector="SharedStorageConnector")])
    assert found("kv-connector", gone)[0].message.startswith("vLLM 0.32.0 has no KV connector 'SharedStorageConnector'")
    assert not found("kv-connector", gone.replace("v0.32.0", "v0.11.0"))


@pytest.mark.parametrize(
    ("version", "words", "said"),
    [
        ("0.8.0", [kv("decode")], 1),
        ("0.9.1", [kv("decode"), "--connector", "none"], 0),
        ("0.9.1", [kv("decode"), "--connector", "lmcache"], 1),
        ("0.9.1", ["--connector", "nixl"], 0),
        ("0.9.1", [], 0),
        ("1.0.2", [kv("decode"), "--connector", "none"], 1),
        ("1.6.1", [kv("decode")], 0),
        ("", [kv("decode")], 0),
        ("", [kv("decode"), "--connector", "none"], 0),
    ],
)
def test_connector_and_kv_transfer_config_exclude_each_other(version: str, words: list[str], said: int) -> None:
    assert len(found("connector-flag", dynamo(version, None, words))) == said


@pytest.mark.parametrize(
    ("name", "words", "version", "said"),
    [
        ("a", [kv("decode", kv_role=None)], "v0.32.0", ["not_starting"]),
        ("a", [kv("decode", kv_role=None), "--kv-transfer-config.kv_role=kv_both"], "v0.22.1", []),
        ("a", [kv("decode", kv_role="kv_both")], "v0.24.0", ["fragile"]),
        ("a", [kv("decode", kv_role="kv_both")], "v0.22.1", []),
        ("a", [kv("decode", kv_role="kv_both", kv_connector="MultiConnector")], "v0.32.0", []),
        ("my-prefill", [kv("decode")], "v0.32.0", ["fragile"]),
        ("my-prefill", [kv("decode", kv_connector="MooncakeConnector")], "v0.32.0", ["not_serving"]),
        ("my-decode", [kv("decode")], "v0.32.0", []),
        ("prefill-decode", [kv("decode")], "v0.32.0", []),
        ("a", ["--kv-transfer-config={{ .Values.kv }}"], "v0.32.0", []),
    ],
)
def test_kv_role_is_there_and_that_of_its_side(name: str, words: list[str], version: str, said: list[str]) -> None:
    assert harms("kv-role", pod(name, words, version=version)) == said


@pytest.mark.parametrize(
    ("version", "prefill", "decode", "said"),
    [
        ("1.6.1", [MODE_P], [MODE_D], []),
        ("1.6.1", [MODE_P], [], ["not_serving"]),
        ("1.4.2", [MODE_P], [], ["not_serving"]),
        ("1.2.1", [MODE_P], [], ["fragile"]),
        ("0.8.0", ["--is-prefill-worker"], [], []),
        ("0.8.0", [MODE_P], [], ["not_serving"]),
        ("", ["--is-prefill-worker"], [], ["fragile"]),
        ("", [MODE_P], [], ["fragile"]),
        ("1.3.0", [MODE_P], [], ["fragile"]),
        ("1.6.1", [], [MODE_D], ["not_serving"]),
        ("0.9.1", [], [], ["not_serving"]),
        ("1.6.1", [MODE_D], [MODE_D], ["not_serving"]),
        ("1.6.1", [MODE_P], ["--disaggregation-mode=agg"], ["not_serving"]),
        ("1.6.1", ["--disaggregation-mode={{ .Values.mode }}"], [MODE_D], []),
        ("1.6.1", [MODE_P], ["{{ .Values.more }}"], []),
        ("1.0.2", [MODE_P, "--is-prefill-worker"], [MODE_D], ["not_starting"]),
    ],
)
def test_what_a_worker_is_meant_to_be_its_command_says(
    version: str, prefill: list[str], decode: list[str], said: list[str]
) -> None:
    assert harms("role-flag", dynamo(version, prefill, decode)) == said


def test_a_role_may_come_by_the_environment() -> None:
    text = dynamo("1.6.1", [MODE_P], [])
    env = "              env: [{name: DYN_VLLM_DISAGGREGATION_MODE, value: decode}]\n"
    assert found("role-flag", text)
    assert not found("role-flag", text + env)
    assert not found("role-flag", text + "              envFrom: [{secretRef: {name: more}}]\n")


def test_a_graph_without_one_side() -> None:
    alone = dynamo("1.6.1", None, [MODE_D, kv("decode")])
    assert "503" in found("prefill-missing", alone)[0].message
    assert "computes prompts itself" in found("prefill-missing", dynamo("0.9.1", None, []))[0].message
    assert harms("decode-missing", dynamo("1.6.1", [MODE_P, kv("prefill")], None)) == ["not_serving"]
    assert harms("prefill-missing", dynamo("0.9.1", None, [])) == ["fragile"]
    both = dynamo("1.6.1", [MODE_P], [MODE_D])
    assert not found("prefill-missing", both) + found("decode-missing", both)
    other = alone + "---\n" + dynamo("1.6.1", [MODE_P, kv("prefill")], None)
    assert not found("prefill-missing", other) + found("decode-missing", other)
    assert not found("prefill-missing", dynamo("1.6.1", None, [MODE_D, "{{ .Values.more }}"]))


def test_a_worker_without_a_role_decodes_up_to_1_2() -> None:
    for version, said in (("1.2.1", []), ("1.6.1", ["not_serving"]), ("", [])):
        image = f"nvcr.io/nvidia/ai-dynamo/vllm-runtime:{version}" if version else "example.org/team/engine:main"
        workers = [component("prefill", "prefill", image, ["--model=/m", MODE_P])]
        workers.append(component("backend", "worker", image, ["--model=/m"]))
        assert harms("decode-missing", graph(*workers)) == said


def test_what_is_commented_out_is_pointed_at() -> None:
    text = dynamo("1.6.1", None, [MODE_D]) + "    # - name: prefill\n    #   type: prefill\n"
    (finding,) = found("prefill-missing", text)
    assert [text.splitlines()[span.line - 1].strip() for span, _ in finding.also] == ["# - name: prefill"]


@pytest.mark.parametrize(
    ("prefill", "decode", "version", "said"),
    [
        ("", "", "v0.32.0", []),
        ("--kv-cache-dtype fp8", "", "v0.32.0", ["not_serving"]),
        ("--kv-cache-dtype fp8", "", "v0.11.0", ["not_serving"]),
        ("--kv-cache-dtype fp8", "--kv-cache-dtype=fp8", "v0.32.0", []),
        ("--kv-cache-dtype $KIND", "--kv-cache-dtype fp8", "v0.32.0", []),
        ("--model /models/qwen", "--model Qwen/Qwen3-8B", "v0.32.0", ["not_serving"]),
        ("--model /models/qwen", "--model Qwen/Qwen3-8B", "v0.12.0", []),
        ("--model $MODEL", "--model Qwen/Qwen3-8B", "v0.32.0", []),
        ("--dtype half", "--dtype float16", "v0.32.0", []),
        ("--dtype half", "--dtype bfloat16", "v0.32.0", ["not_serving"]),
        ("--dtype half", "", "v0.32.0", []),
        ("--attention-backend flashmla", "--attention-config.backend=FLASHMLA", "v0.32.0", []),
        ("--attention-backend FLASHMLA", "--attention-config.backend=TRITON_MLA", "v0.32.0", ["not_serving"]),
        ("--revision a1", "--revision b2", "v0.32.0", ["wrong_answers"]),
        ("--revision a1", "", "v0.32.0", []),
        ("--quantization fp8", "--quantization awq", "v0.32.0", ["fragile"]),
        ("--max-model-len 16k", "--max-model-len 8000", "v0.32.0", ["wasted"]),
        ("--max-model-len 8192", "--max-model-len 16384", "v0.32.0", []),
        ("", """--speculative-config '{"method":"mtp","num_speculative_tokens":1}'""", "v0.33.0", ["not_serving"]),
        ("", """--speculative-config '{"method":"mtp","num_speculative_tokens":1}'""", "v0.24.0", ["fragile"]),
        ("", """--speculative-config '{"method":"ngram","num_speculative_tokens":1}'""", "v0.33.0", []),
        ("--all2all-backend deepep_high_throughput", "--all2all-backend deepep_low_latency", "v0.32.0", []),
        ("--no-enable-prefix-caching --enforce-eager", "--max-num-seqs 512", "v0.32.0", []),
    ],
)
def test_what_a_pair_must_agree_on(prefill: str, decode: str, version: str, said: list[str]) -> None:
    assert harms("pair-mismatch", pair(prefill, decode, version), "run.sh") == said


def test_two_releases_do_not_shake_hands() -> None:
    assert harms("pair-mismatch", pair(version="v0.32.0", other="v0.31.0"), "run.sh") == ["not_serving"]
    image = "example.org/team/engine:main"
    text = dynamo("", [MODE_P, kv("prefill")], [MODE_D, kv("decode")])
    assert not found("pair-mismatch", text)
    assert harms("pair-mismatch", text.replace(image, "example.org/team/engine:other", 1)) == ["unknown"]
    same_vllm = dynamo("0.8.0", ["--is-prefill-worker"], []).replace("0.8.0", "0.8.1", 1)
    assert not found("pair-mismatch", same_vllm)


def test_the_handshake_may_be_told_not_to_compare() -> None:
    lenient = f"'{kv('decode', kv_connector_extra_config={'enforce_handshake_compat': False})}'"
    text = pair("--dtype half", f"--dtype bfloat16 {lenient}")
    assert not found("pair-mismatch", text, "run.sh")


@pytest.mark.parametrize(
    ("model", "decode", "said"),
    [("m", "HND", 0), ("m", "NHD", 1), ("deepseek-ai/DeepSeek-R1", "NHD", 0), ("m", "$LAYOUT", 0)],
)
def test_kv_is_laid_out_alike_on_both_sides(model: str, decode: str, said: int) -> None:
    lines = [
        f"docker run -e VLLM_KV_CACHE_LAYOUT={layout} vllm/vllm-openai:v0.32.0 --model {model} "
        f"--kv-transfer-config '{kv(side)}' &"
        for side, layout in (("prefill", "HND"), ("decode", decode))
    ]
    assert len(found("pair-mismatch", "#!/bin/bash\n" + "\n".join(lines) + "\n", "run.sh")) == said


def test_engines_of_two_models_in_one_file_are_no_pair() -> None:
    text = pair("--model a", "--model a") + pair("--model b", "--model b --kv-cache-dtype fp8")
    (finding,) = found("pair-mismatch", text, "run.sh")
    assert finding.span.line == 6
    assert finding.also[0][0].line == 5
    assert not [f for f in found("pair-mismatch", text, "run.sh") if "--model" in f.message]


@pytest.mark.parametrize(
    ("prefill", "decode", "version", "said"),
    [
        ("--tensor-parallel-size 2", "-tp 8", "v0.32.0", 0),
        ("--tensor-parallel-size 8", "-tp 2", "v0.32.0", 0),
        ("--tensor-parallel-size 8", "-tp 2", "v0.12.0", 1),
        ("--tensor-parallel-size 6", "-tp 4", "v0.32.0", 1),
        ("--tensor-parallel-size $N", "-tp 4", "v0.32.0", 0),
        ("--data-parallel-size 3", "--data-parallel-size 8", "v0.32.0", 0),
        ("--block-size 64", "--block-size 128", "v0.32.0", 0),
        ("--block-size 128", "--block-size 64", "v0.32.0", 1),
        ("--block-size 128", "--block-size 64", "v0.17.1", 0),
        ("--block-size 128", "", "v0.32.0", 0),
    ],
)
def test_sizes_between_which_kv_can_be_handed_over(prefill: str, decode: str, version: str, said: int) -> None:
    assert len(found("pair-parallel", pair(prefill, decode, version), "run.sh")) == said


@pytest.mark.parametrize(
    ("words", "version", "said"),
    [
        ([kv("decode")], "v0.14.1", 1),
        ([kv("decode")], "v0.12.0", 0),
        ([kv("decode")], "v0.17.1", 0),
        ([kv("decode", kv_load_failure_policy="fail")], "v0.14.1", 0),
        ([kv("decode", kv_load_failure_policy="recompute")], "v0.32.0", 1),
        ([kv("prefill", kv_load_failure_policy="recompute")], "v0.32.0", 0),
        ([kv("decode"), "--kv-transfer-config.kv_load_failure_policy=recompute"], "v0.32.0", 1),
        ([kv("decode", kv_connector="LMCacheConnectorV1", kv_role="kv_both")], "v0.14.1", 0),
        ([], "v0.14.1", 0),
    ],
)
def test_a_failed_load_is_not_hidden(words: list[str], version: str, said: int) -> None:
    assert len(found("kv-load-failure", pod("a", words, version=version))) == said


@pytest.mark.parametrize(
    ("side", "env", "said"),
    [
        ("prefill", "", 1),
        ("decode", "", 0),
        ("prefill", "env: [{name: VLLM_NIXL_SIDE_CHANNEL_HOST, value: localhost}]", 1),
        ("prefill", "env: [{name: VLLM_NIXL_SIDE_CHANNEL_HOST, value: 0.0.0.0}]", 1),
        ("prefill", "env: [{name: VLLM_NIXL_SIDE_CHANNEL_HOST, value: 10.0.0.7}]", 0),
        ("prefill", "env: [{name: VLLM_NIXL_SIDE_CHANNEL_HOST, valueFrom: {fieldRef: {fieldPath: status.podIP}}}]", 0),
        ("prefill", "envFrom: [{configMapRef: {name: elsewhere}}]", 0),
    ],
)
def test_prefill_gives_an_address_others_can_reach(side: str, env: str, said: int) -> None:
    assert len(found("side-channel-host", pod("a", [kv(side)], env))) == said


def test_two_engines_of_one_pod_may_use_localhost() -> None:
    first = pod("a", [kv("prefill")])
    second = first.split("containers:\n", maxsplit=1)[1].replace(kv("prefill"), kv("decode"))
    second = second.replace(json.dumps(kv("prefill")), json.dumps(kv("decode"))).replace("name: engine", "name: two")
    assert not found("side-channel-host", first + second)
    assert harms("side-channel-port", first + second) == ["not_starting"]


ENGINES = """\
#!/bin/bash
{first} vllm serve m --data-parallel-size 4 '{prefill}' {between}
{second} vllm serve m --port 8001 '{decode}' &
"""


@pytest.mark.parametrize(
    ("first", "second", "between", "said"),
    [
        ("VLLM_NIXL_SIDE_CHANNEL_PORT=5600", "VLLM_NIXL_SIDE_CHANNEL_PORT=5603", "&", 1),
        ("VLLM_NIXL_SIDE_CHANNEL_PORT=5600", "VLLM_NIXL_SIDE_CHANNEL_PORT=5604", "&", 0),
        ("VLLM_NIXL_SIDE_CHANNEL_PORT=5601", "VLLM_NIXL_SIDE_CHANNEL_PORT=5600", "&", 0),
        ("", "", "&", 1),
        ("", "VLLM_NIXL_SIDE_CHANNEL_PORT=$PORT", "&", 0),
        ("", "", "", 0),
        ("", "", "&\nwait", 0),
        ("if test -n $P; then", "else", "&", 0),
        ("ssh one", "ssh two", "&", 0),
    ],
)
def test_ranks_of_one_host_need_ports_of_their_own(first: str, second: str, between: str, said: int) -> None:
    tail = "fi\n" if second == "else" else ""
    text = ENGINES.format(first=first, second=second, between=between, prefill=kv("prefill"), decode=kv("decode"))
    assert len(found("side-channel-port", text + tail, "run.sh")) == said


@pytest.mark.parametrize(
    ("door", "replicas", "said"),
    [
        ([], 2, ["wasted"]),
        ([], 1, []),
        (["--router-mode=kv"], 2, []),
        (["--router-mode=round-robin"], 2, []),
        (["{{ .Values.more }}"], 2, []),
    ],
)
def test_a_front_door_with_a_choice_is_told_how_to_choose(door: list[str], replicas: int, said: list[str]) -> None:
    image = "nvcr.io/nvidia/ai-dynamo/vllm-runtime:1.6.1"
    worker = component("worker", "worker", image, ["--model=/m"], f"replicas: {replicas}")
    text = graph(component("frontend", "frontend", image, door), worker)
    assert harms("router-mode", text) == said
    ranks = text.replace('"--model=/m"', '"--model=/m"\n                - "-dp=4"')
    assert harms("router-mode", ranks) == (["wasted"] if not door else [])


def test_a_picker_routes_instead_of_the_front_door() -> None:
    image = "nvcr.io/nvidia/ai-dynamo/vllm-runtime:1.6.1"
    parts = [component("frontend", "frontend", image, [])]
    parts.append(component("worker", "worker", image, ["--model=/m"], "replicas: 4"))
    assert found("router-mode", graph(*parts))
    assert not found("router-mode", graph(*parts, "    - {name: epp, type: epp}\n"))


def test_a_variable_beside_the_flag_does_nothing() -> None:
    text = dynamo("1.6.1", None, [], ["--router-mode=kv"])
    env = "              env: [{name: DYN_ROUTER_MODE, value: %s}]\n    - name: decode"
    assert harms("router-mode", text.replace("    - name: decode", env % "random")) == ["wasted"]
    assert not found("router-mode", text.replace("    - name: decode", env % "kv"))


@pytest.mark.parametrize(
    ("version", "door", "prefill", "said"),
    [
        ("1.6.1", ["--router-mode=kv"], [MODE_P, EVENTS], 0),
        ("1.6.1", ["--router-mode=kv"], [MODE_P], 1),
        ("1.0.2", ["--router-mode=kv"], [MODE_P], 0),
        ("", ["--router-mode=kv"], [MODE_P], 0),
        ("1.6.1", ["--router-mode=kv", "--no-router-kv-events"], [MODE_P], 0),
        ("1.6.1", ["--router-mode=kv"], [MODE_P, EVENTS, "--no-enable-prefix-caching"], 1),
        ("1.6.1", ["--router-mode=kv"], [MODE_P, """--kv-events-config={"publisher":"zmq"}"""], 1),
        ("1.6.1", ["--router-mode=kv"], [MODE_P, "--kv-events-config={{ .Values.events }}"], 0),
        ("1.6.1", ["--router-mode=random"], [MODE_P, EVENTS], 1),
        ("1.6.1", ["--router-mode=random"], [MODE_P], 0),
        ("1.6.1", ["--router-mode=direct"], [MODE_P, EVENTS], 0),
        ("1.6.1", [], [MODE_P, EVENTS], 0),
    ],
)
def test_events_are_published_where_somebody_listens(
    version: str, door: list[str], prefill: list[str], said: int
) -> None:
    assert len(found("kv-events", dynamo(version, prefill, [MODE_D], door))) == said


@pytest.mark.parametrize(
    ("size", "words", "said"),
    [
        ("64", ["--block-size=64"], 0),
        ("64", ["--block-size=128"], 1),
        ("64", [], 1),
        ("64", ["{{ .Values.more }}"], 0),
        ("{{ .Values.size }}", ["--block-size=128"], 0),
    ],
)
def test_the_picker_cuts_blocks_as_the_engines_do(size: str, words: list[str], said: int) -> None:
    image = "nvcr.io/nvidia/ai-dynamo/vllm-runtime:1.6.1"
    env = f'[{{name: DYN_KV_CACHE_BLOCK_SIZE, value: "{size}"}}]'
    epp = f"""\
    - name: epp
      type: epp
      podTemplate: {{spec: {{containers: [{{name: main, image: e:1, env: {env}}}]}}}}
"""
    assert len(found("epp-block-size", graph(epp, component("w", "worker", image, ["--model=/m", *words])))) == said


@pytest.mark.parametrize(
    ("words", "nodes", "said"),
    [
        (["--data-parallel-size", "16"], 2, 0),
        (["--data-parallel-size=16"], 2, 1),
        (["--data_parallel_size", "16"], 2, 1),
        (["-dp", "16"], 2, 1),
        (["--tensor-parallel-size=1", "--data-parallel-size", "16"], 2, 0),
        (["-tp", "16"], 2, 1),
        (["--data-parallel-size=4"], 1, 0),
        (["--data-parallel-size={{ .Values.n }}"], 2, 0),
    ],
)
def test_the_operator_reads_whole_words(words: list[str], nodes: int, said: int) -> None:
    image = "nvcr.io/nvidia/ai-dynamo/vllm-runtime:1.6.1"
    rest = f"multinode: {{nodeCount: {nodes}}}" if nodes > 1 else ""
    text = graph(component("worker", "worker", image, ["--model=/m", *words], rest))
    assert len(found("operator-blind-flag", text)) == said


def test_the_operator_s_own_writing_is_the_fix_in_a_script_too() -> None:
    text = """\
apiVersion: nvidia.com/v1alpha1
kind: DynamoGraphDeployment
metadata: {name: g}
spec:
  services:
    worker:
      componentType: worker
      multinode: {nodeCount: 2}
      extraPodSpec:
        mainContainer:
          image: nvcr.io/nvidia/ai-dynamo/vllm-runtime:1.2.1
          command: [bash, -c]
          args:
            - |
              exec python3 -m dynamo.vllm --model /m \\
                --data_parallel_size=16 --enable-expert-parallel
"""
    (finding,) = found("operator-blind-flag", text)
    assert finding.fix is not None
    assert [edit.text for edit in finding.fix.edits] == ["--data-parallel-size 16"]
    assert [edit.span.written for edit in finding.fix.edits] == ["--data_parallel_size=16"]


def test_one_served_name_for_dynamo_several_for_vllm() -> None:
    several = ["--served-model-name", "a", "b"]
    assert harms("served-names", dynamo("1.6.1", None, several)) == ["not_starting"]
    assert not found("served-names", dynamo("1.6.1", None, several[:2]))
    assert not found("served-names", pod("a", several))


def test_a_number_of_five_thousand_digits_is_no_number() -> None:
    many = "9" * 5000
    text = dynamo("1.6.1", [MODE_P, f"--block-size={many}"], [MODE_D, f"-tp={many}", f"--data-parallel-size={many}"])
    script = f"#!/bin/bash\n#SBATCH --nodes={many}\n" + pair(f"-tp {many}", f"--block-size {many}")
    for code in ("pair-parallel", "operator-blind-flag", "router-mode", "side-channel-port", "epp-block-size"):
        assert not found(code, text.replace("type: decode", "type: decode\n      multinode: {nodeCount: 2}"))
        assert not found(code, script, "run.sh")
