"""Sampling with transformers' own `generate`: slower than poc.decode, right for every causal model.

`generate` asks us for each next token: what it offers are the logits, what it gets back leaves one choice. So the draws
and the statistics are those of poc.draw, and no generation setting of the model has a say. It is the way for
architectures that poc.decode cannot serve, and what poc.decode is tested against: the whole prompt is computed for
every completion, and a finished row is computed on until the last one ends.
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from poc.draw import Drawn, draw, left_pad
from poc.models import Policy


class _Draw(LogitsProcessor):
    """Draws the next token of every row; `drawn` grows by those of the rows that have not ended."""

    def __init__(self, policy: Policy, temperature: float, uniform: Tensor, drawn: Sequence[Drawn]) -> None:
        self.policy, self.temperature, self.uniform, self.drawn = policy, temperature, uniform, drawn
        self.step = 0

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """`scores` [R, V]: float32 logits. Returns -inf for all but the token that was drawn."""
        logits = scores[:, : self.policy.head.vocab_size]
        tokens, stats = draw(logits, self.temperature, self.uniform[:, self.step])
        self.step += 1
        columns = (x.tolist() for x in (tokens, *stats))
        for one, token, *found in zip(self.drawn, *columns, strict=True):
            if not one.token_ids or one.token_ids[-1] not in self.policy.stop_ids:
                one.add(token, *found)
        return torch.full_like(scores, -torch.inf).scatter_(1, tokens[:, None], 0.0)


@torch.no_grad()
def generate(
    policy: Policy, prompts: Sequence[Sequence[int]], copies: int, temperature: float, uniform: Tensor, max_rows: int
) -> list[Drawn]:
    """As poc.decode.decode: `copies` completions of each prompt, whole groups of at most `max_rows` at once."""
    drawn = [Drawn() for _ in range(len(uniform))]
    together = max(1, max_rows // copies)
    for first in range(0, len(prompts), together):
        rows = slice(first * copies, (first + together) * copies)
        _generate(policy, prompts[first : first + together], copies, temperature, uniform[rows], drawn[rows])
    return drawn


def _generate(policy: Policy, prompts, copies: int, temperature: float, uniform: Tensor, drawn: list[Drawn]) -> None:
    input_ids, mask = (x.repeat_interleave(copies, 0) for x in left_pad(prompts, policy))
    base = policy.model.get_base_model()
    own, base.generation_config = base.generation_config, GenerationConfig()  # theirs may repeat-penalise, cut or force
    settings = GenerationConfig(
        max_new_tokens=uniform.shape[1], do_sample=False, pad_token_id=0, eos_token_id=sorted(policy.stop_ids) or None
    )
    try:
        policy.model.generate(
            input_ids=input_ids, attention_mask=mask, generation_config=settings,
            logits_processor=LogitsProcessorList([_Draw(policy, temperature, uniform, drawn)]),
        )  # fmt: skip
    finally:
        base.generation_config = own
