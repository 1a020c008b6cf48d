"""What an exported folder says, by transformers and PEFT alone: nothing of the kit is imported.

Reads a request from standard input and prints the answer as the last line, both JSON.

    folder        the export                     base, quantization   of an adapter: the start model's folder, and how
    dtype, device how it is loaded                                    bitsandbytes quantises that (null: not at all)
    prompts       token ids of each              tokens               at most so many new ones
    expected      what each should be answered, token ids
    -> answers    token ids of each greedy completion, its end token included
       gaps       nats that the expected token lies behind the one taken, where an answer parts from it; else null
"""

import json
import sys

import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig, GenerationConfig

ROWS = 10  # prompts at once


def main() -> None:
    asked = json.load(sys.stdin)
    model, prompts = load(asked), asked["prompts"]
    found = [greedy(model, prompts[i : i + ROWS], asked["tokens"]) for i in range(0, len(prompts), ROWS)]
    answers = [tokens for rows in found for tokens in rows]
    gaps = [gap(model, *three) for three in zip(prompts, asked["expected"], answers, strict=True)]
    print(json.dumps({"answers": answers, "gaps": gaps}))


def load(asked: dict):
    how = {"dtype": getattr(torch, asked["dtype"]), "device_map": {"": asked["device"]}, "use_safetensors": True}
    if asked["base"] is None:
        return AutoModelForCausalLM.from_pretrained(asked["folder"], **how).eval()
    from peft import PeftModel

    four_bit = BitsAndBytesConfig(**asked["quantization"]) if asked["quantization"] else None
    base = AutoModelForCausalLM.from_pretrained(asked["base"], quantization_config=four_bit, **how)
    model = PeftModel.from_pretrained(base, asked["folder"])
    model.generation_config = GenerationConfig.from_pretrained(asked["folder"])
    return model.eval()


@torch.no_grad()
def greedy(model, prompts: list[list[int]], tokens: int) -> list[list[int]]:
    """Padded on the left; nothing but the folder's own generation_config.json says where an answer ends."""
    width = max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(prompt)) + prompt for prompt in prompts], device=model.device)
    mask = torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts], device=model.device)
    out = model.generate(input_ids=ids, attention_mask=mask, do_sample=False, max_new_tokens=tokens)
    return [until_end(row, model.generation_config.eos_token_id) for row in out[:, width:].tolist()]


@torch.no_grad()
def gap(model, prompt: list[int], expected: list[int], found: list[int]) -> float | None:
    """At the first place where both answers have a token and it is another."""
    place = next((i for i, (a, b) in enumerate(zip(expected, found, strict=False)) if a != b), None)
    if place is None:
        return None
    scores = model(torch.tensor([prompt + expected[:place]], device=model.device)).logits[0, -1].float()
    return (scores.max() - scores[expected[place]]).item()


def until_end(row: list[int], ends: int | list[int] | None) -> list[int]:
    ends = ends if isinstance(ends, list) else [ends]
    return row[: next((i + 1 for i, token in enumerate(row) if token in ends), len(row))]


if __name__ == "__main__":
    main()
