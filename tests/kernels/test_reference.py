"""The reference backend against cases worked by hand: it is the truth for every other test here."""

import math

import pytest
import torch
from vocab_kernels import linear_token_stats, token_stats

INF = math.inf


def stats(logits, target, **options):
    out = token_stats(torch.tensor(logits, dtype=torch.float64), torch.tensor(target), backend="reference", **options)
    return [x.item() for x in out]


@pytest.mark.parametrize("size", [1, 2, 31, 1000])
def test_uniform(size):
    logp, entropy, certainty = stats([3.0] * size, size - 1)
    assert logp == pytest.approx(-math.log(size), abs=1e-12)
    assert entropy == pytest.approx(math.log(size), abs=1e-12)
    assert certainty == pytest.approx(0.0, abs=1e-12)


@pytest.mark.parametrize(
    "p, entropy, certainty",
    [((0.98, 0.01, 0.01), 0.112, 1.978), ((0.5, 0.4999, 0.0001), 0.694, 2.434)],
)
def test_self_certainty_is_not_negative_entropy(p, entropy, certainty):
    """The second distribution has the higher entropy and the higher self-certainty."""
    out = stats([math.log(x) for x in p], 1)
    assert out == pytest.approx([math.log(p[1]), entropy, certainty], abs=6e-4)


def test_by_hand():
    """p = (1/2, 1/4, 1/8, 1/8): H = 7/4 ln 2; KL(U || p) = -mean ln p - ln 4 = (9/4 - 2) ln 2."""
    out = stats([5.0 - k * math.log(2) for k in (1, 2, 3, 3)], 2)
    assert out == pytest.approx([k * math.log(2) for k in (-3, 1.75, 0.25)], abs=1e-12)


def test_temperature_and_softcap_by_hand():
    """cap: 2 tanh(x / 2); at T = 0.5 the two z are 4 tanh(0.5) and 4 tanh(-1)."""
    a, b = 4 * math.tanh(0.5), 4 * math.tanh(-1.0)
    p = math.exp(a) / (math.exp(a) + math.exp(b))
    expected = [math.log(1 - p), -p * math.log(p) - (1 - p) * math.log(1 - p), -math.log(4 * p * (1 - p)) / 2]
    assert stats([1.0, -2.0], 1, temperature=0.5, softcap=2.0) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("softcap", [None, 3.0])
def test_masked_and_padded_columns_do_not_exist(softcap):
    alone = stats([1.0, 2.0, 0.5], 1, softcap=softcap)
    assert stats([-INF, 1.0, 2.0, -INF, 0.5], 2, softcap=softcap) == pytest.approx(alone, abs=1e-12)
    assert stats([1.0, 2.0, 0.5, 9.0, 9.0], 1, softcap=softcap, vocab_size=3) == pytest.approx(alone, abs=1e-12)


def test_gradient_of_logp_by_hand():
    """d logp / dz = onehot - p, with p = (1/2, 1/4, 1/4)."""
    logits = torch.tensor([2.0, 1.0, 1.0]).log().requires_grad_()
    token_stats(logits, torch.tensor(1), backend="reference").logp.backward()
    assert logits.grad.tolist() == pytest.approx([-0.5, 0.75, -0.25], abs=1e-6)


def test_linear_is_the_logits_then_the_statistics():
    hidden = torch.tensor([[1.0, 2.0], [0.0, -1.0]], dtype=torch.float64)
    weight = torch.tensor([[1.0, 0.0], [0.0, 1.0], [2.0, -1.0]], dtype=torch.float64)
    bias = torch.tensor([0.5, 0.0, -0.5], dtype=torch.float64)
    logits = torch.tensor([[1.5, 2.0, -0.5], [0.5, -1.0, 0.5]], dtype=torch.float64)
    targets = torch.tensor([2, 0])
    ours = linear_token_stats(hidden, weight, targets, bias=bias, backend="reference")
    for a, b in zip(ours, token_stats(logits, targets, backend="reference"), strict=True):
        assert a.tolist() == pytest.approx(b.tolist(), abs=1e-12)


def test_entropy_carries_a_gradient_only_on_request():
    hidden, weight, targets = torch.randn(2, 3, requires_grad=True), torch.randn(4, 3), torch.tensor([0, 1])
    for backend in ("reference", "torch"):
        for wanted in (False, True):
            out = linear_token_stats(hidden, weight, targets, entropy_grad=wanted, backend=backend)
            assert (out.logp.requires_grad, out.entropy.requires_grad) == (True, wanted)
            assert out.self_certainty.requires_grad
