"""Command lines and environment of containers as the kubelet hands them on."""

from __future__ import annotations

import pytest

from baton.check.kubernetes import manifests as kubernetes
from baton.check.kubernetes.manifests import Container
from baton.check.shell.script import Word
from baton.check.text import Source, Text
from baton.check.yaml import tree
from baton.check.yaml.tree import Scalar, Sequence

HEAD = "apiVersion: v1\nkind: Pod\nmetadata: {name: p}\nspec:\n  containers:\n  - name: c\n"


def container(fields: str) -> Container:
    body = "".join(f"    {line}\n" for line in fields.splitlines())
    documents = tree.read(Source("pod.yaml", HEAD + body)).documents
    (workload,) = kubernetes.workloads(kubernetes.objects(documents))
    assert workload.pod.main is not None
    return workload.pod.main


def words(fields: str) -> tuple[Word, ...]:
    args = container(fields).args
    assert args is not None
    return args


def values(fields: str) -> list[tuple[str, bool]]:
    return [(word.value, word.is_known) for word in words(fields)]


def test_reference_stands_where_the_variable_was_set() -> None:
    (word,) = words("env:\n- {name: MODEL, value: deepseek}\nargs: ['--model=$(MODEL)-r1']")
    assert (word.value, word.is_known) == ("--model=deepseek-r1", True)
    assert word.span.written == "'--model=$(MODEL)-r1'"
    assert word.text.span(8, 16).written == "deepseek"
    assert word.text.span(8, 16).line == 8
    assert word.text.span(0, 7).written == "--model"


def test_escapes_are_undone() -> None:
    assert values("env: [{name: A, value: x}]\nargs: [$$(A), a$$b, $A, $(, 100$]") == [
        ("$(A)", True),
        ("a$b", True),
        ("$A", True),
        ("$(", True),
        ("100$", True),
    ]


def test_variable_that_nothing_sets_stays_as_written() -> None:
    assert values("args: [$(NOPE)]") == [("$(NOPE)", True)]


def test_variable_of_a_service_is_not_known() -> None:
    assert values("args: [$(KUBERNETES_SERVICE_HOST)]") == [("$(KUBERNETES_SERVICE_HOST)", False)]


@pytest.mark.parametrize(
    "env",
    [
        "envFrom: [{secretRef: {name: s}}]",
        "env: [{name: '{{ .Values.name }}', value: x}]",
        "env: [{name: X, valueFrom: {secretKeyRef: {name: s, key: k}}}]",
    ],
)
def test_variable_that_may_be_set_elsewhere_is_not_known(env: str) -> None:
    assert values(f"{env}\nargs: [--x, $(X)]") == [("--x", True), ("$(X)", False)]


def test_script_keeps_what_only_a_shell_can_fill_in() -> None:
    script = "exec vllm serve $(MODEL) --host $(hostname -i) --token $(TOKEN)"
    found = container(
        "envFrom: [{secretRef: {name: s}}]\nenv: [{name: MODEL, value: m}]\n"
        f"command: [bash, -lc]\nargs: ['{script}', $(TOKEN)]"
    )
    assert found.args is not None
    assert [(w.value, w.is_known) for w in found.args] == [
        (script.replace("$(MODEL)", "m"), True),
        ("$(TOKEN)", False),
    ]


def test_values_may_refer_to_earlier_ones_only() -> None:
    env = container("env:\n- {name: A, value: $(B)}\n- {name: B, value: b}\n- {name: C, value: $(B)c}").env
    assert {name: v.word.value for name, v in env.items()} == {"A": "$(B)", "B": "b", "C": "bc"}


def test_values_that_grow_without_end_are_not_known() -> None:
    env = "env:\n- {name: V0, value: xx}\n" + "".join(
        f"- {{name: V{n}, value: $(V{n - 1})$(V{n - 1})}}\n" for n in range(1, 60)
    )
    found = container(env).env
    assert (len(found["V9"].word.value), found["V9"].word.is_known) == (1024, True)
    assert not found["V59"].word.is_known


def test_variables_are_read_as_written() -> None:
    found = container(
        "env:\n- name: A\n  value: 1\n- {name: B, value: yes}\n- {name: C}\n- {name: A, value: '2'}\n"
        "- {name: D, valueFrom: {fieldRef: {fieldPath: status.podIP}}}"
    )
    assert {k: (v.word.value, v.word.is_known) for k, v in found.env.items()} == {
        "A": ("2", True),
        "B": ("yes", True),
        "C": ("", True),
        "D": ("", False),
    }
    assert tree.string(found.env["D"].source, "fieldRef.fieldPath") == "status.podIP"
    assert found.env["B"].span.written == "name: B, value: yes"
    assert found.is_env_complete


def test_command_given_as_a_string_is_one_word() -> None:
    found = container("command: vllm serve m")
    assert found.args is None
    assert found.command is not None
    assert [w.value for w in found.command] == ["vllm serve m"]


def test_items_that_are_no_scalars_are_left_out() -> None:
    assert values("args: [a, [b], {c: d}, 1, true]") == [("a", True), ("1", True), ("true", True)]


def test_empty_args_are_not_absent_ones() -> None:
    assert values("args: []") == []
    assert container("args:").args is None


def test_list_that_a_template_adds_to_ends_in_an_unknown_word() -> None:
    span = Source("pod.yaml", "abc").span(0, 3)
    item = Scalar(Text.at("a", span), "a", span)
    documents = tree.read(Source("pod.yaml", HEAD + "    args: [x]\n    env: []\n")).documents
    node = tree.mapping(documents[0], "spec.containers.0")
    assert node is not None
    for key in ("args", "env"):
        object.__setattr__(node.entries[key], "value", Sequence((item,), span, is_complete=False))
    main = kubernetes.workloads(kubernetes.objects(documents))[0].pod.main
    assert main is not None
    assert main.args is not None
    assert [(w.value, w.is_known, w.is_splitting) for w in main.args] == [("a", True, False), ("", False, True)]
    assert not main.is_env_complete
