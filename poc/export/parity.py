"""The gate: what was written says what the run's policy says, or it is not handed over.

The first hold-out questions are answered greedily twice: by the run's policy, as the kit loads it, and by transformers
and PEFT alone, in a process of their own that loads the folder as anybody would (plain/replay.py). Compared are the
tokens before the end token, that token, and nothing behind it:

    agreement of a question = places with equal tokens / tokens of the longer answer, TOKENS at most
    passed: the mean over the questions is LIMIT or more, and the written tokenizer makes the same prompts

The policy that an adapter is compared with has its start model in 4 bits where it was trained so; the one that merged
weights are compared with has it whole, since they are. What the 4 bits change is measured beside it and gates nothing.
Greedy answers are a strict test: where two tokens are nearly as likely, 16 bits may pick the other one, and all behind
it differs. So the gap is measured where two answers part, in nats by which the run's token is behind the one taken: a
small one is a near tie, a large one another model. Not here: accuracy, which says whether such a difference matters
(`poc evaluate`).
"""

import gc
import json
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from os import environ
from pathlib import Path
from statistics import fmean
from typing import NamedTuple

import torch
from transformers import AutoTokenizer

from poc import pilot
from poc.config import RunConfig
from poc.export.taken import Taken
from poc.models import load_policy
from poc.records import RunError
from poc.rollout import sample
from poc.text import clip, visible

QUESTIONS, TOKENS, LIMIT = 50, 32, 0.95
NEAR = 0.5  # nats; chosen: where bfloat16 turned an answer of a toy or of Gemma 3, the gap was below 0.01
REPLAY = Path(__file__).parent / "plain" / "replay.py"

Answers = Sequence[Sequence[int]]


@dataclass(frozen=True, slots=True)
class Reference:
    """What the run's policy says, and how it was loaded. `quantization`: bitsandbytes' settings, or None."""

    prompts: list[list[int]]
    answers: Answers
    tokens: int  # of an answer at most
    tokenizer: object
    stop_ids: frozenset[int]
    dtype: str
    device: str
    quantization: dict | None


@dataclass(frozen=True, slots=True)
class Parity:
    """`agreement`: mean share; `equal`: questions with the same answer to its end. `gap`: the largest, None where
    answers do not part. `four_bit`: agreement of merged weights with the 4-bit policy that was trained, if one was."""

    agreement: float
    equal: int
    questions: int
    tokens: int
    dtype: str
    reference_dtype: str
    device: str
    gap: float | None = None
    four_bit: float | None = None


class _Asked(NamedTuple):
    """What poc.pilot.prompt_encoder knows of a policy."""

    source: str
    tokenizer: object


def reference(taken: Taken, quantization: str) -> Reference:
    """The greedy answers of the run's policy. `quantization`: nf4 or none. Raises InputError as load_policy does."""
    config = taken.config
    policy = load_policy(
        config.model, quantization=quantization, lora_rank=config.lora.rank, lora_alpha=config.lora.alpha,
        adapter=taken.checkpoint,
    )  # fmt: skip
    prompts = _prompts(taken, policy.tokenizer)
    limit = getattr(policy.model.config, "max_position_embeddings", None) or 2**31
    tokens = min(TOKENS, limit - max(map(len, prompts)))
    drawn = sample(policy, prompts, 1, max_new_tokens=tokens, temperature=0.0, seed=0)
    four_bit = getattr(policy.model.get_base_model().config, "quantization_config", None)
    found = Reference(
        prompts, [episode.token_ids for (episode,) in drawn], tokens, policy.tokenizer, policy.stop_ids,
        str(policy.dtype).removeprefix("torch."), str(policy.device), four_bit and four_bit.to_dict(),
    )  # fmt: skip
    del policy
    _forget()
    return found


def _forget() -> None:
    """Give back the memory of a model that nobody holds any more: another process is about to load the same."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def check(
    taken: Taken, folder: Path, asked: Reference, base: Path | None, dtype: str, four_bit: Reference | None = None
) -> Parity:
    """The folder against the policy. `base`: an adapter's start model. `four_bit`: what the policy of merged weights
    says as it was trained. Raises RunError below LIMIT."""
    if _prompts(taken, AutoTokenizer.from_pretrained(folder, trust_remote_code=False)) != asked.prompts:
        raise RunError("the tokenizer that was written reads the prompts as other tokens than the run's does")
    answers, gaps = replay(folder, asked, base, dtype)
    shares = [agreement(a, b) for a, b in zip(asked.answers, answers, strict=True)]
    found = Parity(
        fmean(shares), sum(share == 1 for share in shares), len(shares), asked.tokens, dtype, asked.dtype, asked.device,
        max((gap for gap in gaps if gap is not None), key=lambda gap: (gap != gap, gap), default=None),  # NaN first
        four_bit and _mean_agreement(four_bit.answers, answers),
    )  # fmt: skip
    if found.agreement < LIMIT:
        raise RunError(_too_low(found, "adapter" if base else "merged"))
    return found


def replay(folder: Path, asked: Reference, base: Path | None, dtype: str) -> tuple[Answers, Sequence[float | None]]:
    """The answers of what lies in `folder` and their gaps, from a process that knows nothing of this kit."""
    request = {
        "folder": str(folder), "base": base and str(base), "quantization": asked.quantization if base else None,
        "dtype": dtype, "device": asked.device, "prompts": asked.prompts, "tokens": asked.tokens,
        "expected": [list(answer) for answer in asked.answers],
    }  # fmt: skip
    _forget()
    offline = environ | {"HF_HUB_OFFLINE": "1"}  # all of it is here
    done = subprocess.run(
        [sys.executable, str(REPLAY)], input=json.dumps(request), env=offline, capture_output=True, text=True
    )
    if done.returncode:
        said = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise RunError(f"transformers cannot load what was written: {clip(visible(said[-1]), 300)}")
    found = json.loads(done.stdout.splitlines()[-1])
    return found["answers"], found["gaps"]


def agreement(a: Sequence[int], b: Sequence[int]) -> float:
    """Share of the places with equal tokens, of the longer of two answers."""
    return sum(x == y for x, y in zip(a, b, strict=False)) / max(len(a), len(b))


def _mean_agreement(a: Answers, b: Answers) -> float:
    return fmean(map(agreement, a, b))


def _prompts(taken: Taken, tokenizer) -> list[list[int]]:
    """As the hold-out was asked."""
    encode = encoder(taken.config, tokenizer)
    return [list(encode(example)) for example in taken.holdout[:QUESTIONS]]


def encoder(config: RunConfig, tokenizer):
    """A function from a question to the tokens of its prompt, with this tokenizer."""
    return pilot.prompt_encoder(pilot.Job(Path(), "", None, config), _Asked(config.model, tokenizer))[0]


def _too_low(found: Parity, kind: str) -> str:
    return (
        f"what was written agrees with the run on {found.agreement:.1%} of the first {found.tokens} greedy tokens of "
        f"{found.questions} questions ({found.equal} alike to the end; {found.dtype} against {found.reference_dtype}, "
        f"on {found.device}), and {LIMIT:.0%} are needed. Likely: {_likely(found, kind)}"
    )


def _likely(found: Parity, kind: str) -> str:
    other = {"bfloat16": "float16", "float16": "bfloat16"}.get(found.dtype)
    if found.gap is not None and not isfinite(found.gap):
        return f"numbers on the way are beyond {found.dtype}: try --dtype {other}, or export the adapter"
    if kind == "merged" and found.gap is not None and found.gap < NEAR:
        return (
            f"near ties that {found.dtype} rounds the other way (where answers part, the run's token is at most "
            f"{found.gap:.2f} nats behind): try --dtype {other}, or export the adapter"
        )
    return (
        "no rounding, but another model: a start model that was changed, or another version of transformers or peft"
        + (f" (where answers part, the run's token is up to {found.gap:.2f} nats behind)" if found.gap else "")
    )
