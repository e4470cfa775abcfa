"""Trains tiny-r1 and writes its checkpoint.

    python models/tiny-r1/train.py --steps 8800              one GPU, minutes
    python models/tiny-r1/train.py --steps 30 --scale 0.05   a CPU, to see that it runs

One step, aloud: three batches of chats (short, middle, long) are generated for that step number alone, so a run is the
same whatever the number of workers; each gives a cross-entropy on the last reply (its thought, `</think>`, the answer
and the end token), nothing else; AdamW moves the weights; each mixture's correction bias moves a little towards the
experts chosen too seldom (no balancing loss). Weights stay fp32 and the maths runs in bf16 where that is safe.
The evaluation at the end is of what is written: weights rounded to bf16, computed in fp32.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import time
from pathlib import Path
from typing import NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812 - its name everywhere
from chats import Chat, Turn, sample_chat
from model import Config, DeepseekV3, checkpoint_config, checkpoint_tensors
from problems import Problem, held_out_problems, is_exact
from safetensors.torch import save_file
from tokenizer import CHECKPOINT, END_THINK, EOS, encode_chats, load_tokenizer
from tokenizers import Tokenizer
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

IGNORED = -100
PAD_ID = 2
NUM_WARMUP_STEPS = 200
BIAS_STEP = 2e-3
EVALUATION_SEED = 0
LINES = ("Say hello!", "Who are you?", "What is the capital of France?", "12 * 12", "347+586", "What is 187 - 532?")


class Bucket(NamedTuple):
    """Rows of one length in every step, and the weight of their mean loss in it."""

    length: int
    num_rows: int
    min_turns: int
    max_turns: int
    loss_weight: float


BUCKETS = (Bucket(128, 256, 1, 2, 0.5), Bucket(512, 48, 3, 16, 0.25), Bucket(2048, 13, 12, 80, 0.25))


class Batches(Dataset[list[tuple[Tensor, Tensor]]]):
    """Item `step`: tokens [rows, length] and targets [rows, length] of each bucket, made from the step's number."""

    def __init__(self, tokenizer_json: str, num_steps: int, seed: int, scale: float) -> None:
        self.tokenizer_json, self.num_steps, self.seed, self.scale = tokenizer_json, num_steps, seed, scale
        self.tokenizer: Tokenizer | None = None

    def __len__(self) -> int:
        return self.num_steps

    def __getitem__(self, step: int) -> list[tuple[Tensor, Tensor]]:
        if step >= self.num_steps:
            raise IndexError(step)
        if self.tokenizer is None:
            self.tokenizer = Tokenizer.from_str(self.tokenizer_json)
        rng = random.Random(f"{self.seed} {step}")
        return [self._batch(self.tokenizer, rng, bucket) for bucket in BUCKETS]

    def _batch(self, tokenizer: Tokenizer, rng: random.Random, bucket: Bucket) -> tuple[Tensor, Tensor]:
        num_rows = max(1, round(bucket.num_rows * self.scale))
        chats = [sample_chat(rng, rng.randint(bucket.min_turns, bucket.max_turns)) for _ in range(num_rows)]
        tokens = torch.full((num_rows, bucket.length), PAD_ID)
        targets = torch.full((num_rows, bucket.length), IGNORED)
        for row, (ids, num_prompt) in enumerate(encode_chats(tokenizer, chats, bucket.length, rng)):
            tokens[row, : len(ids)] = torch.tensor(ids)
            targets[row, num_prompt - 1 : len(ids) - 1] = tokens[row, num_prompt : len(ids)]
        return tokens, targets


def train(args: argparse.Namespace) -> DeepseekV3:
    """Run the steps; print the loss and the worst expert load every hundred."""
    device = "cuda" if torch.cuda.is_available() else "cpu"
    torch.manual_seed(args.seed)
    torch.set_float32_matmul_precision("high")
    model = DeepseekV3(Config()).to(device)
    optimizer = _optimizer(model, args.lr)
    batches = Batches((CHECKPOINT / "tokenizer.json").read_text(), args.steps, args.seed, args.scale)
    loader = DataLoader(batches, batch_size=None, num_workers=args.workers, prefetch_factor=8 if args.workers else None)
    losses_of = torch.compile(_losses, dynamic=False) if device == "cuda" else _losses
    start = time.monotonic()
    for step, batch in enumerate(loader):
        pace = _pace(step, args.steps)
        for group in optimizer.param_groups:
            group["lr"] = args.lr * pace
        loss, load_LE = torch.zeros((), device=device), torch.zeros((), device=device)
        for bucket, (tokens, targets) in zip(BUCKETS, batch, strict=True):
            bucket_loss, bucket_load = losses_of(model, tokens.to(device, non_blocking=True), targets.to(device))
            (bucket_loss * bucket.loss_weight).backward()
            loss, load_LE = loss + bucket_loss.detach() * bucket.loss_weight, load_LE + bucket_load.detach()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        _rebalance(model, load_LE, BIAS_STEP * pace)
        if step % 100 == 0 or step == args.steps - 1:
            worst = (load_LE.amax(dim=1) / load_LE.mean(dim=1)).max().item()
            seconds = time.monotonic() - start
            print(f"step {step:6d}  loss {loss.item():.5f}  worst load {worst:.2f}x  {seconds:6.1f} s", flush=True)
        if args.save_every and step and step % args.save_every == 0:
            save_checkpoint(model, args.out)
    return model


def save_checkpoint(model: DeepseekV3, folder: Path) -> None:
    """Write config.json, generation_config.json and model.safetensors beside the tokenizer's files."""
    folder.mkdir(parents=True, exist_ok=True)
    save_file(checkpoint_tensors(model), folder / "model.safetensors", metadata={"format": "pt"})
    generation = {"bos_token_id": 0, "eos_token_id": 1, "pad_token_id": 2, "do_sample": False}
    for name, document in (("config.json", checkpoint_config(model.c)), ("generation_config.json", generation)):
        (folder / name).write_text(json.dumps(document, indent=2) + "\n")


def evaluate(model: DeepseekV3, tokenizer: Tokenizer, num_problems: int) -> None:
    """Print what the bf16-rounded weights answer in fp32, greedily: a few lines, then held-out problems, alone and last
    in a long chat, with the smallest gap between the best two logits of an answer."""
    torch.set_float32_matmul_precision("highest")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(parameter.bfloat16())
    lines = [Chat("", [Turn(line, "", "")]) for line in LINES]
    for line, answer in zip(LINES, greedy(model, tokenizer, _prompts(tokenizer, lines)), strict=True):
        print(f"{line!r} -> {answer.text!r}  margin {answer.margin:.2f}")
    rng = random.Random(EVALUATION_SEED)
    problems = held_out_problems(num_problems, EVALUATION_SEED)
    for name, num_turns, count in (("alone", 0, num_problems), ("last of a long chat", 48, num_problems // 4)):
        chats = [_ending_in(rng, problem, num_turns) for problem in problems[:count]]
        prompts = _prompts(tokenizer, chats)
        answers = [a for i in range(0, count, 125) for a in greedy(model, tokenizer, prompts[i : i + 125])]
        pairs = list(zip(problems, answers, strict=False))
        wrong = [(p, a) for p, a in pairs if not is_exact(p, a.text.partition(END_THINK)[2])]
        for problem, answer in wrong[:10]:
            print(f"WRONG {problem.question!r}: {answer.text!r}, not {problem.reply!r}")
        margins = sorted(answer.margin for answer in answers)
        mean_prompt = sum(map(len, prompts)) / count
        print(
            f"{name}: {1 - len(wrong) / count:.2%} of {count} held-out problems exact; mean prompt {mean_prompt:.0f} "
            f"tokens; smallest margin of an answer: median {margins[count // 2]:.2f}, "
            f"1st percentile {margins[count // 100]:.2f}"
        )


class Answer(NamedTuple):
    """A greedy answer and the smallest gap, over its tokens, between the best two logits."""

    text: str
    margin: float


@torch.no_grad()
def greedy(model: DeepseekV3, tokenizer: Tokenizer, prompts: list[list[int]], max_new_tokens: int = 64) -> list[Answer]:
    """Greedy answers, recomputing every position for every token: slow, and hard to get wrong."""
    device = next(model.parameters()).device
    eos = tokenizer.token_to_id(EOS)
    ends = torch.tensor([len(prompt) for prompt in prompts], device=device)
    tokens = torch.full((len(prompts), int(ends.max()) + max_new_tokens), eos, device=device)
    for row, prompt in enumerate(prompts):
        tokens[row, : len(prompt)] = torch.tensor(prompt)
    rows, starts = torch.arange(len(prompts), device=device), ends.clone()
    alive = torch.ones_like(ends, dtype=torch.bool)
    margins = torch.full((len(prompts),), float("inf"), device=device)
    for _ in range(max_new_tokens):
        logits, _ = model(tokens[:, : int(ends.max())])
        best = logits[rows, ends - 1].topk(2, dim=-1)
        token, gap = best.indices[:, 0], best.values[:, 0] - best.values[:, 1]
        margins = torch.where(alive, torch.minimum(margins, gap), margins)
        alive &= token != eos
        if not alive.any():
            break
        tokens[rows[alive], ends[alive]] = token[alive]
        ends = ends + alive
    texts = [tokenizer.decode(tokens[row, starts[row] : ends[row]].tolist()) for row in range(len(prompts))]
    return [Answer(text, margin) for text, margin in zip(texts, margins.tolist(), strict=True)]


def _ending_in(rng: random.Random, problem: Problem, num_turns: int) -> Chat:
    chat = sample_chat(rng, num_turns) if num_turns else Chat("", [])
    return Chat(chat.system, [*chat.turns, Turn(problem.question, problem.thought, problem.reply)])


def _prompts(tokenizer: Tokenizer, chats: list[Chat]) -> list[list[int]]:
    encoded = encode_chats(tokenizer, chats, BUCKETS[-1].length, random.Random(EVALUATION_SEED))
    return [ids[:num_prompt] for ids, num_prompt in encoded]


def _losses(model: DeepseekV3, tokens: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    with torch.autocast(tokens.device.type, dtype=torch.bfloat16, enabled=tokens.is_cuda):
        logits, choices_LBTE = model(tokens)
    load_LE = (choices_LBTE & (tokens != PAD_ID)[..., None]).sum(dim=(1, 2)).float()
    return F.cross_entropy(logits.float().flatten(0, 1), targets.flatten(), ignore_index=IGNORED), load_LE


def _rebalance(model: DeepseekV3, load_LE: Tensor, step: float) -> None:
    """Raise the bias of experts chosen less than the mean, lower the others', and keep each layer's mean bias at 0."""
    for gate, load_E in zip(model.gates(), load_LE, strict=True):
        bias = gate.e_score_correction_bias
        bias += step * torch.sign(load_E.mean() - load_E)
        bias -= bias.mean()


def _optimizer(model: DeepseekV3, lr: float) -> torch.optim.AdamW:
    matrices = [p for name, p in model.named_parameters() if p.dim() == 2 and "embed" not in name]
    others = [p for name, p in model.named_parameters() if p.dim() != 2 or "embed" in name]
    groups = [{"params": matrices, "weight_decay": 0.1}, {"params": others, "weight_decay": 0.0}]
    return torch.optim.AdamW(groups, lr=lr, betas=(0.9, 0.98), fused=torch.cuda.is_available())


def _pace(step: int, num_steps: int) -> float:
    """Fraction of the peak rate: a linear warm-up, then a cosine to zero."""
    warm = min(1.0, (step + 1) / NUM_WARMUP_STEPS)
    return warm * 0.5 * (1 + math.cos(math.pi * step / num_steps))


def main() -> None:
    """Parse the arguments, train, save, evaluate."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=8800)
    parser.add_argument("--lr", type=float, default=2e-3, help="peak learning rate of AdamW")
    parser.add_argument("--scale", type=float, default=1.0, help="rows per step, as a fraction of the full batch")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--workers", type=int, default=max(0, (os.cpu_count() or 1) - 2), help="processes that make data"
    )
    parser.add_argument("--out", type=Path, default=CHECKPOINT)
    parser.add_argument("--save-every", type=int, default=0, metavar="STEPS", help="0: only at the end")
    parser.add_argument("--problems", type=int, default=1000, help="held-out problems of the last evaluation")
    args = parser.parse_args()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
    model = train(args)
    save_checkpoint(model, args.out)
    print(f"{sum(p.numel() for p in model.parameters())} parameters")
    evaluate(model, load_tokenizer(), args.problems)


if __name__ == "__main__":
    main()
