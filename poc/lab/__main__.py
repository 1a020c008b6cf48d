"""Train the embedded pair from scratch and measure it: `python -m poc.lab`.

Deterministic on one machine (fixed seeds and numbers of threads). The base learns logic, then sums as well, then all
six domains, and is stopped early on purpose: it should be right on 10 to 80 % of each domain's questions at temperature
1. The instruct model goes on from the base in the chat template, mostly with what the base is bad at, until it is surer
of itself, but no domain beyond 80 %.
"""

import argparse
import time
from collections.abc import Iterator
from pathlib import Path
from random import Random

import torch
from transformers import LlamaConfig, LlamaForCausalLM

from poc.lab import corpus, measure, tokenizer

LOGIC_STEPS, TWO_STEPS, SIX_STEPS, INSTRUCT_STEPS = 1000, 1100, 1250, 500
CONFIG = dict(
    hidden_size=128, num_hidden_layers=4, num_attention_heads=4, num_key_value_heads=4, intermediate_size=288,
    max_position_embeddings=1024, tie_word_embeddings=True, rope_theta=10000.0, bos_token_id=None,
)  # fmt: skip


def new_model(tokens) -> LlamaForCausalLM:
    """A fresh model with the seed's weights."""
    torch.manual_seed(0)
    ends = dict(eos_token_id=tokens.eos_token_id, pad_token_id=tokens.pad_token_id)
    return LlamaForCausalLM(LlamaConfig(vocab_size=len(tokens), **ends, **CONFIG))


def fit(model: LlamaForCausalLM, data: Iterator, steps: int, learning_rate: float, last: float = 1.0) -> None:
    """AdamW, 100 steps of linear warm-up, then a linear way to `last` times the learning rate."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=learning_rate, betas=(0.9, 0.98), weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: min((step + 1) / 100, 1 - (1 - last) * step / steps)
    )
    started = time.monotonic()
    for step in range(1, steps + 1):
        ids, labels = next(data)
        loss = model(ids, attention_mask=(ids != model.config.pad_token_id).long(), labels=labels).loss
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        if step % 100 == 0 or step == steps:
            print(f"step {step}/{steps} loss {loss.item():.3f} {time.monotonic() - started:.0f} s", flush=True)


def save(model: LlamaForCausalLM, tokens, folder: Path) -> None:
    model.save_pretrained(folder)
    tokens.save_pretrained(folder)
    print(f"{folder}: {model.num_parameters():,} parameters")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m poc.lab", description="Train lab:base and lab:instruct from scratch."
    )
    parser.add_argument("--out", type=Path, help="write there instead, and do not measure")
    out = parser.parse_args().out
    torch.set_num_threads(2)
    torch.use_deterministic_algorithms(True)
    plain, chat = tokenizer.build(chat=False), tokenizer.build(chat=True)
    model = new_model(plain)
    logic_first = corpus.batches(plain, corpus.base_text, corpus.LOGIC_FIRST, Random(1), 32)
    two = corpus.batches(plain, corpus.base_text, corpus.TWO, Random(2), 48)
    six = corpus.batches(plain, corpus.base_text, corpus.SIX, Random(4), 48)
    instructed = corpus.batches(chat, corpus.instruct_text, corpus.INSTRUCT, Random(3), 48)
    fit(model, logic_first, LOGIC_STEPS, 1.5e-3)
    fit(model, two, TWO_STEPS, 1e-3)
    torch.set_num_threads(1)  # as the shipped weights were made
    fit(model, six, SIX_STEPS, 1e-3)
    save(model, plain, (out or measure.HERE) / "base")
    fit(model, instructed, INSTRUCT_STEPS, 1e-3, last=1 / 3)
    save(model, chat, (out or measure.HERE) / "instruct")
    if out is None:
        measure.write()


if __name__ == "__main__":
    main()
