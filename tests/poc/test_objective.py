"""Advantages and loss against hand-worked cases and autograd in float64."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from poc.objective import advantages, normalise, policy_loss

F64 = torch.float64


def tensor(*values):
    return torch.tensor(values, dtype=F64)


def test_normalise_by_hand():
    got = normalise(tensor([1.0, 0.0, 0.0, 1.0], [0.3, 0.3, 0.3, 0.3]))
    std = math.sqrt(4 * 0.25 / 3)  # ddof 1
    assert got[0].tolist() == pytest.approx(
        [0.5 / (std + 1e-4), -0.5 / (std + 1e-4), -0.5 / (std + 1e-4), 0.5 / (std + 1e-4)]
    )
    assert got[1].tolist() == [0, 0, 0, 0]  # exact: 0.3 * 4 / 4 is not 0.3 in binary


@given(st.lists(st.floats(-1e3, 1e3), min_size=2, max_size=8), st.floats(-1e3, 1e3), st.floats(1, 1e3))
def test_normalise_ignores_shift_and_nearly_scale(row, shift, scale):
    a = normalise(tensor(row))
    assert abs(a.sum()) < 1e-6 * max(1, a.abs().max())
    if tensor(row).std() > 1:
        assert torch.allclose(normalise(tensor(row) * scale + shift), a, atol=1e-3)


def test_parts_are_normalised_before_they_are_mixed():
    parts = {"big": tensor([1000.0, 0.0]), "small": tensor([0.0, 0.01])}
    mixed = advantages(parts, {"big": 1.0, "small": 1.0})
    assert mixed.abs().max() < 0.02  # equal weight although one is 100,000 times larger (0.01: epsilon's share)
    assert advantages(parts, {"big": 0.0, "small": 2.0})[0, 1] > 1.3


def test_loss_by_hand_clipping_on_the_harmful_side_only():
    ratio = tensor(1.5, 1.5, 0.5, 0.5, 1.0)
    advantage = tensor(1.0, -1.0, 1.0, -1.0, 2.0)
    logp = ratio.log().requires_grad_()
    out = policy_loss(logp, torch.zeros(5, dtype=F64), advantage, tokens=10, clip=0.2)
    # min(rho A, clip(rho) A): 1.2, -1.5, 0.5, -0.8, 2.0
    assert out.loss.item() == pytest.approx(-(1.2 - 1.5 + 0.5 - 0.8 + 2.0) / 10)
    assert out.clipped.item() == 2
    out.loss.backward()
    assert logp.grad.tolist() == pytest.approx([0, 0.15, -0.05, 0, -0.2])  # clipped tokens have no gradient


def test_on_policy_gradient_is_reinforce():
    logp = tensor(-1.0, -2.0, -0.1).requires_grad_()
    advantage = tensor(1.0, -0.5, 2.0)
    policy_loss(logp, logp.detach(), advantage, tokens=3, clip=0.2).loss.backward()
    assert torch.allclose(logp.grad, -advantage / 3)


def test_kl_is_k3_and_pulls_back():
    logp = tensor(-1.0, -2.0).requires_grad_()
    start = tensor(-1.5, -2.0)
    out = policy_loss(logp, logp.detach(), tensor(0.0, 0.0), tokens=2, clip=0.2, start_logp=start, kl=0.1)
    k3 = math.exp(-0.5) + 0.5 - 1
    assert out.kl.item() == pytest.approx(k3) and out.loss.item() == pytest.approx(0.1 * k3 / 2)
    out.loss.backward()
    assert logp.grad[0] > 0 and logp.grad[1] == 0  # more likely than at the start: descent lowers it


def test_gradcheck():
    torch.manual_seed(0)
    logp = torch.randn(6, dtype=F64, requires_grad=True)
    old, start, advantage = logp.detach() + 0.03 * torch.randn(6), torch.randn(6, dtype=F64), torch.randn(6, dtype=F64)
    f = lambda x: policy_loss(x, old, advantage, tokens=6, clip=0.2, start_logp=start, kl=0.1).loss  # noqa: E731
    assert torch.autograd.gradcheck(f, (logp,))
