"""What a pass costs: matrix products, and live memory beside inputs and outputs."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from vocab_kernels import linear_token_stats, token_stats
from vocab_kernels import stats as stats_module
from vocab_kernels.tiles import plan

MIB = 2**20
OURS = pytest.mark.parametrize("name", ["torch", "triton"])


def case(rows, size, width, dtype=torch.float32):
    """hidden, weight, targets."""
    return torch.randn(rows, size).to(dtype), torch.randn(width, size).to(dtype), torch.randint(width, (rows,))


@pytest.fixture
def no_casts(monkeypatch):
    """On CUDA half-precision products need no casts; the interpreter's host does, and they are not the account's."""
    triton_backend = pytest.importorskip("vocab_kernels.triton_backend")
    plain = triton_backend.product

    def product(a, b, out, add=False):
        if a.dtype in (torch.float16, torch.bfloat16):
            out.mul_(1.0 if add else 0.0)
        else:
            plain(a, b, out, add)

    monkeypatch.setattr(triton_backend, "product", product)


FROZEN, HEAD, BOTH = (True, False), (False, True), (True, True)
EVERY = ("logp", "entropy", "self_certainty")


@pytest.mark.parametrize(
    "units, trained, used, ignored, options",
    [
        (1, (False, False), EVERY, 0, {}),
        (2, FROZEN, ("logp",), 0, {}),
        (2, FROZEN, EVERY[::2], 0, {}),
        (2, FROZEN, ("logp",), 0, {"max_memory_mib": 0.04}),
        (2, FROZEN, ("logp",), 0, {"softcap": 3.0}),
        (3, FROZEN, EVERY, 0, {"entropy_grad": True}),
        (4, FROZEN, EVERY[::2], 0, {"softcap": 3.0}),
        (3, HEAD, ("logp",), 0, {}),
        (4, BOTH, EVERY, 0, {"entropy_grad": True}),
        (0.5, FROZEN, ("logp",), 30, {}),
        (0, BOTH, ("logp",), 40, {}),
    ],
)
@OURS
def test_matrix_products(products, name, units, trained, used, ignored, options):
    """Forward and backward, in units of 2 N H V."""
    hidden, weight, targets = case(40, 8, 50)
    targets[:ignored] = -100
    hidden, weight = hidden.requires_grad_(trained[0]), weight.requires_grad_(trained[1])
    with products:
        out = linear_token_stats(hidden, weight, targets, bias=torch.randn(50), backend=name, **options)
        if any(trained):
            sum(getattr(out, each).sum() for each in used).backward()
    assert products.flops == units * 2 * 40 * 8 * 50


@OURS
def test_matrix_products_of_a_lora_head(products, name):
    """Three large ones; those of rank 3: the logits twice, their gradients to the input and to B; h Aᵀ and its two."""
    hidden, weight, targets = case(40, 8, 50)
    a, b = torch.randn(3, 8, requires_grad=True), torch.randn(50, 3, requires_grad=True)
    with products:
        out = linear_token_stats(hidden.requires_grad_(), weight, targets, lora=(a, b, 0.5), backend=name)
        out.logp.sum().backward()
    assert products.flops == 2 * 40 * (3 * 8 * 50 + 4 * 3 * 50 + 3 * 8 * 3)


@pytest.mark.parametrize("trained", [(False, False), (True, False), (True, True)])
@pytest.mark.parametrize("options", [{}, {"softcap": 3.0, "entropy_grad": True}])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("cap", [0.5, 2.0])
@OURS
def test_memory_account(request, live_memory, name, trained, options, dtype, cap):
    """Forward and backward stay within the cap beside what is kept: 160 bytes a token, residuals, gradients."""
    if name == "triton":
        request.getfixturevalue("no_casts")
    rows, size, width = (300, 32, 4000) if name == "torch" else (40, 32, 30000)
    hidden, weight, targets = case(rows, size, width, dtype=dtype)
    hidden, weight = hidden.requires_grad_(trained[0]), weight.requires_grad_(trained[1])
    with live_memory:
        out = linear_token_stats(hidden, weight, targets, max_memory_mib=cap, backend=name, **options)
        if any(trained):
            sum(x.sum() for x in out if x.requires_grad).backward()
    kept = 160 * rows
    if trained == (True, False):
        kept += rows * size * (4 * (2 if "entropy_grad" in options else 1) + 4 + dtype.itemsize)
    if trained == (True, True):
        kept += (rows + width) * size * (4 + dtype.itemsize)
    assert live_memory.peak <= cap * MIB + kept
    assert live_memory.peak >= 0.3 * cap * MIB  # the cap is used, and the account sees it
    assert 4 * rows * width > 2 * cap * MIB  # the logits alone would pass it


@pytest.mark.parametrize("rows, size, width", [(6, 256, 4000), (150, 2048, 40)])
@OURS
def test_memory_account_of_casts(request, live_memory, name, rows, size, width):
    """The float32 copies of weight and hidden states are tiled too, in Triton those of unlike halves."""
    hidden, weight, targets = case(rows, size, width, dtype=torch.bfloat16)
    if name == "triton":
        request.getfixturevalue("no_casts")
        weight = weight.half()
    with live_memory:
        linear_token_stats(hidden, weight, targets, max_memory_mib=0.5, backend=name)
    assert 0.2 * MIB <= live_memory.peak <= 0.5 * MIB + 100 * rows
    assert 4 * max(rows, width) * size > 2 * 0.5 * MIB  # a whole copy would pass the cap


@settings(deadline=None, max_examples=200)
@given(
    st.integers(0, 10**5), st.integers(1, 3 * 10**5), st.integers(14, 72), st.integers(512, 40000),
    st.integers(4, 40000), st.integers(1000, 2**31),
)  # fmt: skip
def test_a_tile_fits_its_budget(rows, columns, per_cell, per_row, per_column, budget):
    least = per_cell + per_row + per_column
    if least > budget:
        with pytest.raises(ValueError, match="max_memory_mib"):
            plan(rows, columns, per_cell, per_row, per_column, budget)
        return
    n, v = plan(rows, columns, per_cell, per_row, per_column, budget)
    assert 1 <= n <= max(rows, 1) and 1 <= v <= columns
    assert n * v * per_cell + n * per_row + v * per_column <= budget


@pytest.mark.parametrize("softcap", [None, 5.0])
def test_memory_account_of_given_logits(live_memory, monkeypatch, softcap):
    """Beside the gradient and 50 bytes a token (twice while chunks are joined) the temporaries stay in the budget."""
    monkeypatch.setattr(stats_module, "LOGITS_BUDGET", 200_000)
    logits, targets = torch.randn(500, 400, requires_grad=True), torch.randint(400, (500,))
    with live_memory:
        out = token_stats(logits, targets, softcap=softcap)
        assert 100_000 <= live_memory.peak <= 200_000 + 500 * 2 * 50
        sum(x.sum() for x in out).backward()
    assert live_memory.peak <= 200_000 + 500 * (4 * 400 + 2 * 50)


def test_memory_account_of_ignored_tokens(live_memory):
    """Beside the cap: hidden of the tokens that count, R, their gradient, the whole gradient; never two whole ones."""
    hidden, weight, targets = case(2000, 64, 500)
    targets[::2] = -100
    hidden.requires_grad_()
    with live_memory:
        out = linear_token_stats(hidden, weight, targets, max_memory_mib=0.125)
        (out.logp + out.self_certainty).sum().backward()
    counted, whole = 1000 * 64 * 4, 2000 * 64 * 4
    assert live_memory.peak <= max(0.125 * MIB + 2 * counted, counted + whole) + 2000 * 160


def test_memory_account_of_a_wide_vocabulary(live_memory):
    """Not one number for every word, though the mean row needs them all."""
    hidden, weight, targets = case(3, 2, 600_000)
    hidden, options = hidden.requires_grad_(), {"bias": torch.zeros(600_000), "max_memory_mib": 0.5}
    with live_memory:
        linear_token_stats(hidden, weight, targets, **options).self_certainty.sum().backward()
    assert live_memory.peak <= 0.5 * MIB + 3 * 160


@OURS
def test_memory_account_of_a_lora_part(live_memory, name):
    """B [V, r] in half precision is cast a tile at a time."""
    hidden, weight, targets = case(8, 16, 3000)
    a, b = torch.randn(512, 16, dtype=torch.bfloat16), torch.randn(3000, 512, dtype=torch.bfloat16)
    with live_memory:
        linear_token_stats(hidden, weight, targets, lora=(a, b, 0.1), max_memory_mib=0.5, backend=name)
    assert live_memory.peak <= 0.5 * MIB + 8 * (160 + 512 * 4 * 3) + 512 * 16 * 4
