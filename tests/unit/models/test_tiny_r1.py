# ruff: noqa: RUF001 - DeepSeek's tokens are spelt with a full-width bar
"""tiny-r1: its problems are right, its split is clean, its tokenizer is faithful, its checkpoint answers."""

from __future__ import annotations

import json
import random
import re
import struct
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest

FOLDER = Path(__file__).parents[3] / "models" / "tiny-r1"
CHECKPOINT = FOLDER / "checkpoint"
COLUMN = re.compile(r"(\d+)([+-])(\d)(?:([+-])1)?=(\d+)( carry 1| borrow 1)?")


@pytest.fixture(scope="module")
def tiny():
    """The folder's modules; its name has a dash, so it is put on the path for as long as they are imported."""
    names = ("problems", "phrases", "chats")
    sys.path.insert(0, str(FOLDER))
    try:
        modules = SimpleNamespace(**{name: __import__(name) for name in names})
    finally:
        sys.path.remove(str(FOLDER))
    yield modules
    for name in names:
        sys.modules.pop(name, None)


@pytest.fixture(scope="module")
def tokens(tiny):
    """The tokenizer module, where `tokenizers` is installed."""
    pytest.importorskip("tokenizers")
    sys.path.insert(0, str(FOLDER))
    try:
        module = __import__("tokenizer")
    finally:
        sys.path.remove(str(FOLDER))
    yield module
    sys.modules.pop("tokenizer", None)


def value_of_thought(thought: str) -> int:
    """Read a thought back, checking every column, and return the number that its columns spell."""
    lines = thought.split("\n")
    sign = 1
    if "<" in lines[0]:
        left, right = map(int, lines.pop(0).split("<"))
        assert left < right
        sign = -1
    digits, moved = "", False
    for index, line in enumerate(lines):
        match = COLUMN.fullmatch(line)
        assert match, line
        x, op, y, one, result, said = match.groups()
        assert bool(one) == moved, thought
        assert one in (None, op)
        step = int(y) + bool(one)
        assert int(result) == (int(x) + step if op == "+" else int(x) - step), line
        last = index == len(lines) - 1
        moved = bool(said)
        if op == "+":
            assert moved == (int(result) > 9 and not last), line
        else:
            assert moved == (int(x) > 9), line
            assert not (last and moved)
        digits = (result if last else result[-1]) + digits
    return sign * int(digits)


def test_every_thought_works_out_its_reply(tiny):
    rng = random.Random(1)
    for _ in range(5000):
        problem = tiny.problems.sample_problem(rng)
        left, equals, right = problem.reply.partition(" = ")
        a, op, b = left.split(" ")
        expected = int(a) + int(b) if op == "+" else int(a) - int(b)
        assert equals
        assert (int(a), op, int(b)) == (problem.a, problem.op, problem.b)
        assert int(right) == expected == value_of_thought(problem.thought)


def test_a_question_names_both_operands(tiny):
    rng = random.Random(2)
    for _ in range(2000):
        problem = tiny.problems.sample_problem(rng)
        assert sorted(map(int, re.findall(r"\d+", problem.question))) == sorted((problem.a, problem.b))


def test_the_same_seed_gives_the_same_chats(tiny):
    first, second, other = (
        [tiny.chats.sample_chat(random.Random(seed), num_turns) for num_turns in (1, 2, 30)] for seed in (3, 3, 4)
    )
    assert first == second != other


def test_no_chat_contains_a_held_out_pair(tiny):
    rng = random.Random(5)
    replies = [turn.reply for _ in range(300) for turn in tiny.chats.sample_chat(rng, 10).turns]
    equations = [match for reply in replies if (match := re.fullmatch(r"(\d+) ([+-]) (\d+) = -?\d+", reply))]
    assert len(equations) > 1000
    assert not any(tiny.problems.is_held_out(m[2], int(m[1]), int(m[3])) for m in equations)


def test_held_out_problems_are_held_out_in_both_orders_distinct_and_repeatable(tiny):
    problems = tiny.problems.held_out_problems(500, seed=7)
    assert problems == tiny.problems.held_out_problems(500, seed=7)
    assert len({(p.op, p.a, p.b) for p in problems}) == 500
    assert all(
        tiny.problems.is_held_out(p.op, p.a, p.b) and tiny.problems.is_held_out(p.op, p.b, p.a) for p in problems
    )
    assert {p.op for p in problems} == {"+", "-"}
    assert {p.num_digits for p in problems} == {1, 2, 3}


def test_exact_means_the_equation_and_nothing_else(tiny):
    problem = tiny.problems.Problem("-", 187, 532, "187-532")
    assert tiny.problems.is_exact(problem, "\n\n187 - 532 = -345")
    assert not tiny.problems.is_exact(problem, "187 - 532 = -346")
    assert not tiny.problems.is_exact(problem, "187 - 532 = -345 or so")


@pytest.mark.parametrize(
    "text", ["", "347 + 586", "naïve café 🎉\t\r\n  x", "你好，世界", "\x00\x7f", "''\"--==", "<think>"]
)
def test_any_text_round_trips(tokens, text):
    tokenizer = tokens.load_tokenizer()
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False).ids, skip_special_tokens=False) == text


def test_every_digit_is_one_token(tokens):
    tokenizer = tokens.load_tokenizer()
    vocabulary = [tokenizer.decode([i]) for i in range(tokenizer.get_vocab_size())]
    assert [piece for piece in vocabulary if re.search(r"\d", piece) and len(piece) > 1] == []
    assert len(tokenizer.encode("1234567890", add_special_tokens=False).ids) == 10


def render(tokens, messages: list[dict[str, str]], *, add_generation_prompt: bool) -> str:
    jinja2 = pytest.importorskip("jinja2")
    environment = jinja2.Environment(trim_blocks=True, lstrip_blocks=True)  # as transformers does
    template = json.loads((CHECKPOINT / "tokenizer_config.json").read_text())["chat_template"]
    return environment.from_string(template).render(
        messages=messages, add_generation_prompt=add_generation_prompt, bos_token=tokens.BOS, eos_token=tokens.EOS
    )


def test_the_chat_template_renders_as_deepseek_r1s(tokens):
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "1+1"},
        {"role": "assistant", "content": "<think>\n1+1=2\n</think>\n\n2"},
        {"role": "user", "content": "2+2"},
    ]
    history = "<｜begin▁of▁sentence｜>Be brief.<｜User｜>1+1<｜Assistant｜>\n\n2<｜end▁of▁sentence｜><｜User｜>2+2"
    assert render(tokens, messages, add_generation_prompt=False) == history
    assert render(tokens, messages, add_generation_prompt=True) == history + "<｜Assistant｜><think>\n"


def test_training_tokens_are_the_chat_templates(tiny, tokens):
    tokenizer = tokens.load_tokenizer()
    for seed in range(40):
        chat = tiny.chats.sample_chat(random.Random(seed), 1 + seed % 5)
        gap = random.Random(seed).choice(("", "\n\n"))
        [(ids, num_prompt)] = tokens.encode_chats(tokenizer, [chat], 4096, random.Random(seed))
        messages = [{"role": "system", "content": chat.system}]
        for turn in chat.turns:
            messages += [{"role": "user", "content": turn.user}, {"role": "assistant", "content": gap + turn.reply}]
        text = render(tokens, messages[:-1], add_generation_prompt=True)
        assert ids[:num_prompt] == tokenizer.encode(text, add_special_tokens=False).ids


def test_the_checkpoint_is_a_small_deepseek_v3():
    config = json.loads((CHECKPOINT / "config.json").read_text())
    assert config["architectures"] == ["DeepseekV3ForCausalLM"]
    assert config["kv_lora_rank"] + config["qk_rope_head_dim"] == 576
    assert config["n_routed_experts"] % 4 == 0
    assert config["topk_group"] > 1 < config["n_group"]
    assert config["num_nextn_predict_layers"] == 0
    assert config["max_position_embeddings"] == 4096
    assert sum(file.stat().st_size for file in CHECKPOINT.iterdir()) <= 16 * 2**20

    with (CHECKPOINT / "model.safetensors").open("rb") as file:
        (header_bytes,) = struct.unpack("<Q", file.read(8))
        tensors = json.loads(file.read(header_bytes))
    tensors.pop("__metadata__")
    biases = {name for name in tensors if name.endswith("e_score_correction_bias")}
    assert len(biases) == config["num_hidden_layers"] - config["first_k_dense_replace"]
    assert {tensors[name]["dtype"] for name in biases} == {"F32"}
    assert {tensor["dtype"] for name, tensor in tensors.items() if name not in biases} == {"BF16"}
    assert f"model.layers.1.mlp.experts.{config['n_routed_experts'] - 1}.gate_proj.weight" in tensors
    ends = [tensor["data_offsets"] for name, tensor in tensors.items() if name not in biases]
    assert sum(end - start for start, end in ends) // 2 <= 7_000_000


@pytest.mark.filterwarnings("default")
def test_transformers_answers_greedily(tiny, tokens):
    """bf16 weights in fp32: held-out problems are exact, a greeting is greeted, the unknown is declined."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    model = transformers.AutoModelForCausalLM.from_pretrained(CHECKPOINT, dtype=torch.float32)
    tokenizer = tokens.load_tokenizer()

    def content(question: str) -> str:
        prompt = render(tokens, [{"role": "user", "content": question}], add_generation_prompt=True)
        ids = torch.tensor([tokenizer.encode(prompt, add_special_tokens=False).ids])
        output = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=64, do_sample=False)
        text = tokenizer.decode(output[0, ids.shape[1] :].tolist(), skip_special_tokens=False)
        assert text.endswith(tokens.EOS)
        return text.removesuffix(tokens.EOS).partition("</think>")[2]

    problems = tiny.problems.held_out_problems(6, seed=11)
    assert [content(p.question).strip() for p in problems] == [p.reply for p in problems]
    assert content("Say hello!").startswith("\n\nHello!")
    assert "tiny-r1" in content("Who are you?")
    assert "Sorry" in content("What is the capital of France?")
