"""Train the embedded pair from scratch: `python -m poc.lab` writes poc/lab/base and poc/lab/instruct.

Deterministic on one machine (fixed seeds, two threads). The base is stopped early on purpose: it should be right about
half of the time at temperature 1. The instruct model goes on from the base, in the chat template, loss on the answers
only, until it is surer of itself.
"""

import argparse
import time
from pathlib import Path
from random import Random

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from poc.lab import corpus, tokenizer
from poc.tasks import DOMAINS

HERE = Path(__file__).parent
CONFIG = dict(
    hidden_size=128, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=4, intermediate_size=288,
    max_position_embeddings=1024, tie_word_embeddings=True, rope_theta=10000.0,
)  # fmt: skip


def new_model(tok) -> LlamaForCausalLM:
    torch.manual_seed(0)
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=len(tok), bos_token_id=None, eos_token_id=tok.eos_token_id, pad_token_id=tok.pad_token_id, **CONFIG
        )
    )


def base_text(problem: tuple[str, str, str]) -> tuple[str, str]:
    _, question, worked = problem
    return f"{question}\n", f"{worked}<eos>"


def instruct_text(problem: tuple[str, str, str]) -> tuple[str, str]:
    domain, question, worked = problem
    return f"<system>{DOMAINS[domain].INSTRUCTION}<user>{question}<assistant>", f"{worked}<eos>"


def batches(tok, render, rng: Random, size: int, prompt_loss: bool):
    """Endless (input ids [B, L], labels [B, L]) of like-length texts; the loss covers the prompt where asked."""
    while True:
        texts = sorted((render(corpus.draw(rng)) for _ in range(size * 8)), key=lambda t: len(t[0]) + len(t[1]))
        pieces = [texts[i : i + size] for i in range(0, len(texts), size)]
        for piece in rng.sample(pieces, len(pieces)):
            rows = [(tok.encode(p), tok.encode(w)) for p, w in piece]
            width = max(len(p) + len(w) for p, w in rows)
            ids = torch.full((size, width), tok.pad_token_id)
            labels = torch.full((size, width), -100)
            for i, (p, w) in enumerate(rows):
                ids[i, : len(p) + len(w)] = torch.tensor(p + w)
                labels[i, (0 if prompt_loss else len(p)) : len(p) + len(w)] = torch.tensor((p if prompt_loss else []) + w)
            yield ids, labels


def fit(model, data, steps: int, learning_rate: float, warmup: int = 100) -> None:
    """AdamW with a linear warm-up and a linear fall to a tenth."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, betas=(0.9, 0.99), weight_decay=0.01)
    rate = lambda t: min((t + 1) / warmup, 1 - 0.9 * t / steps)  # noqa: E731
    schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    start = time.time()
    for step in range(steps):
        ids, labels = next(data)
        loss = model(ids, attention_mask=(ids != model.config.pad_token_id).long(), labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        if step % 100 == 0 or step == steps - 1:
            print(f"step {step} loss {loss.item():.3f} {time.time() - start:.0f} s", flush=True)
            yield step


def main() -> None:
    parser = argparse.ArgumentParser(description="Train lab:base and lab:instruct from scratch.")
    parser.add_argument("--out", type=Path, default=HERE)
    parser.add_argument("--base-steps", type=int, default=3000)
    parser.add_argument("--instruct-steps", type=int, default=1500)
    args = parser.parse_args()
    torch.set_num_threads(2)
    torch.use_deterministic_algorithms(True)
    plain, chat = tokenizer.build(chat=False), tokenizer.build(chat=True)
    model = new_model(plain)
    print(f"{model.num_parameters():,} parameters")
    for _ in fit(model, batches(plain, base_text, Random(1), 96, prompt_loss=True), args.base_steps, 2e-3):
        model.save_pretrained(args.out / "base")
    plain.save_pretrained(args.out / "base")
    for _ in fit(model, batches(chat, instruct_text, Random(2), 96, prompt_loss=False), args.instruct_steps, 1e-3):
        model.save_pretrained(args.out / "instruct")
    chat.save_pretrained(args.out / "instruct")


if __name__ == "__main__":
    main()
