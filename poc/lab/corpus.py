"""What the lab models learn from: level 0 of all six domains and Knights and Knaves with 3 people, train split only.

Base text is the bare question and a worked solution; instruct text is the same in the chat template, after the
instruction. Hold-out and canary questions never occur, so that a gain on them is not memory.
"""

from collections.abc import Callable, Iterator
from random import Random

import torch
from torch import Tensor

from poc.tasks import DOMAINS, split_of

LOGIC_FIRST = {("logic", 0): 0.5, ("logic", 1): 0.5}
TWO = {("math", 0): 0.65, ("logic", 0): 0.15, ("logic", 1): 0.2}
SIX = {
    ("math", 0): 0.1, ("code", 0): 0.1, ("science", 0): 0.25, ("logic", 0): 0.1, ("logic", 1): 0.1,
    ("simulation", 0): 0.25, ("table", 0): 0.1,
}  # fmt: skip
INSTRUCT = {
    ("math", 0): 0.22, ("code", 0): 0.03, ("science", 0): 0.36, ("logic", 0): 0.12, ("logic", 1): 0.12,
    ("simulation", 0): 0.03, ("table", 0): 0.12,
}  # fmt: skip
Text = tuple[str, str]  # prompt, completion


def base_text(domain: str, level: int, question: str, worked: str) -> Text:
    return f"{question}\n", f"{worked}<eos>"


def instruct_text(domain: str, level: int, question: str, worked: str) -> Text:
    return f"<system>{DOMAINS[domain].instruction(level)}<user>{question}<assistant>", f"{worked}<eos>"


def draw(rng: Random, mix: dict[tuple[str, int], float], render: Callable[..., Text]) -> Text:
    """One problem of the train split as a text."""
    domain, level = rng.choices(list(mix), weights=list(mix.values()))[0]
    while True:
        problem = DOMAINS[domain].make(rng, level)
        if split_of(problem.key) == "train":
            return render(domain, level, problem.question, problem.worked)


def batches(tokenizer, render: Callable[..., Text], mix, rng: Random, size: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless (input ids [B, L], labels [B, L]) of texts of like length; labels are -100 outside the completions.

    The questions are noise to a language model (their numbers cannot be foretold): learning them only slows it down.
    """
    while True:
        texts = sorted((draw(rng, mix, render) for _ in range(size * 8)), key=lambda text: len(text[0]) + len(text[1]))
        pieces = [texts[i : i + size] for i in range(0, len(texts), size)]
        for piece in rng.sample(pieces, len(pieces)):
            yield _batch(tokenizer, piece)


def _batch(tokenizer, texts: list[Text]) -> tuple[Tensor, Tensor]:
    rows = [(tokenizer.encode(prompt), tokenizer.encode(completion)) for prompt, completion in texts]
    width = max(len(prompt) + len(completion) for prompt, completion in rows)
    ids, labels = torch.full((len(rows), width), tokenizer.pad_token_id), torch.full((len(rows), width), -100)
    for i, (prompt, completion) in enumerate(rows):
        end = len(prompt) + len(completion)
        ids[i, :end] = torch.tensor(prompt + completion)
        labels[i, len(prompt) : end] = torch.tensor(completion)
    return ids, labels
