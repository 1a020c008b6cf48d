"""The Triton source itself: every width and dtype, addresses, unwritten memory, repeatability, what compiles anew.

It runs in Triton's interpreter, on the CPU (see tests/conftest.py), or compiled on a GPU:

    TRITON_INTERPRET=0 python -m pytest tests/kernels/test_triton.py

test_token_stats.py and test_linear_token_stats.py hold it against the reference; benchmarks/compiled.py compiles it
for every architecture.
"""

import math

import pytest
import torch
import triton
from vocab_kernels import linear_token_stats, token_stats, triton_backend
from vocab_kernels import triton_kernels as kernels
from vocab_kernels.head import Layer, Options

INF = math.inf
DEVICE = "cpu" if triton_backend.INTERPRETED else "cuda"
DTYPES = [torch.float32, torch.bfloat16, torch.float16]


def rows(n, width, dtype, shift=0.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = (4 * torch.randn(n, width, generator=generator) + shift).to(dtype)
    targets = torch.randint(width, (n,), generator=generator)
    return logits.to(DEVICE), targets.to(DEVICE)


def stats_and_gradient(logits, targets, backend, **options):
    logits = logits.detach().clone().requires_grad_()
    out = token_stats(logits, targets, backend=backend, **options)
    loss = sum((i + 1) * x.nan_to_num(neginf=0.0).sum() for i, x in enumerate(out))
    return [*(x.detach() for x in out), *torch.autograd.grad(loss, logits)]


def errors(ours, truth):
    return [
        (a.double() - b.double()).abs().max().item() if a.numel() else 0.0 for a, b in zip(ours, truth, strict=True)
    ]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("n, width", [
    (3, 1), (1, 2), (5, 31), (1, 127), (3, 128), (5, 129), (3, 1000), (1, 1023), (3, 1025), (2, 50257), (0, 129),
])  # fmt: skip
@pytest.mark.parametrize("shift", [0.0, -200.0, 200.0])
def test_every_width_and_dtype(n, width, dtype, shift):
    """logp within 1e-5 of float64; no worse than the definition in the same dtype, plus 2 ulp of each output."""
    logits, targets = rows(n, width, dtype, shift)
    truth = stats_and_gradient(logits.double(), targets, "reference")
    plain = errors(stats_and_gradient(logits, targets, "reference"), truth)
    ours = errors(stats_and_gradient(logits, targets, "triton"), truth)
    ulp = [torch.finfo(x).eps for x in (torch.float32, torch.float32, torch.float32, dtype)]
    largest = [max([1.0, *x.abs().flatten().tolist()]) for x in truth]
    allowed = [2 * a * b for a, b in zip(ulp, largest, strict=True)]
    assert ours[0] <= 1e-5 and all(a <= b + c for a, b, c in zip(ours, plain, allowed, strict=True))


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("width, entropy_grad", [(31, True), (1000, False), (1025, True), (9001, True)])
def test_every_width_and_dtype_of_a_linear_head(dtype, width, entropy_grad):
    """Against the definition in float64, no worse than plain torch in the same dtype; logp within 1e-5."""
    generator = torch.Generator().manual_seed(1)
    hidden = torch.randn(5, 48, generator=generator).to(DEVICE, dtype)
    weight = (torch.randn(width, 48, generator=generator) * 0.5).to(DEVICE, dtype)
    targets = torch.randint(width, (5,), generator=generator).to(DEVICE)
    used = [0, 1, 2] if entropy_grad else [0, 2]

    def outcome(h, w, backend):
        h = h.detach().requires_grad_()
        if backend == "plain":
            out = token_stats(h @ w.T, targets, backend="reference")
        else:
            out = linear_token_stats(h, w, targets, backend=backend, entropy_grad=entropy_grad)
        return [*(x.detach() for x in out), *torch.autograd.grad(sum(out[i].sum() for i in used), h)]

    truth = outcome(hidden.double(), weight.double(), "reference")
    plain = errors(outcome(hidden, weight, "plain"), truth)
    ours = errors(outcome(hidden, weight, "triton"), truth)
    scale = truth[3].abs().max().item()
    allowed = [1e-6, 1e-6, 1e-6, torch.finfo(dtype).eps * max(1.0, scale) / 4]
    assert ours[0] <= 1e-5 and all(a <= b + c for a, b, c in zip(ours, plain, allowed, strict=True))


@pytest.mark.parametrize("temperature", [1.0, 0.7, 0.9])  # not 1: on a GPU z - top may be fused and inexact
@pytest.mark.parametrize("width", [40, 5000, 50257])
def test_small_entropies_and_a_probability_of_almost_one(width, temperature):
    """1 - p_y = 1e-8 and an entropy near 3e-5: to 1 % and better, where lse - sum p z has lost them (float32)."""
    logits = torch.full((2, width), 0.0, device=DEVICE)
    logits[0, 7] = math.log((width - 1) / 1e-8)
    logits[1, 7] = math.log((width - 1) / 1.5e-6)
    logits = logits * temperature + torch.tensor([[-200.0], [200.0]], device=DEVICE)
    targets, options = torch.tensor([7, 7], device=DEVICE), {"temperature": temperature}
    truth = stats_and_gradient(logits.double(), targets, "reference", **options)
    ours = stats_and_gradient(logits, targets, "triton", **options)
    assert 1e-5 < truth[1][1] < 5e-5
    for a, b in zip(ours[:3], truth[:3], strict=True):
        assert ((a - b).abs() <= (2e-4 if temperature == 1 else 0.01) * b.abs()).all()
    (gradient,), (exact,) = (
        torch.autograd.grad(token_stats(x, targets, backend=name, **options).logp.sum(), x)
        for x, name in ((logits.clone().requires_grad_(), "triton"), (logits.double().requires_grad_(), "reference"))
    )
    assert ((gradient - exact).abs() <= (2e-4 if temperature == 1 else 0.01) * exact.abs()).all()


@pytest.mark.parametrize("dtype", DTYPES)
def test_nearly_certain_tokens_keep_the_gradient_of_a_linear_head(dtype):
    """1 - p_y = 5e-7, shared by 30 columns: below what float16 holds, were e^(z - m) not scaled."""
    generator = torch.Generator().manual_seed(0)
    weight = torch.randn(31, 4, generator=generator) * 0.5
    weight[:, 0] = 0.0
    weight[20, 0] = 1.0
    hidden, weight = torch.tensor([[18.0, 1.0, -1.0, 0.5]]).to(DEVICE, dtype), weight.to(DEVICE, dtype)
    targets, grads = torch.tensor([20], device=DEVICE), []
    for x, w, backend in ((hidden, weight, "triton"), (hidden.double(), weight.double(), "reference")):
        x = x.detach().requires_grad_()
        logp = linear_token_stats(x, w, targets, backend=backend).logp
        grads += torch.autograd.grad(2.0**20 * logp.sum(), x)
    assert (grads[0] - grads[1])[:, 1:].norm() <= torch.finfo(dtype).eps * grads[1][:, 1:].norm() + 1e-6


def test_a_softcap_is_exact_for_small_logits_too():
    """cap tanh(x / cap) of |x| < 1 under a cap of 50, where 1 - 2 / (e^(2x/50) + 1) is off by 3e-6."""
    logits, targets = rows(64, 300, torch.float32)
    truth = stats_and_gradient(logits.double() / 8, targets, "reference", softcap=50.0)
    ours = stats_and_gradient(logits / 8, targets, "triton", softcap=50.0)
    assert errors(ours, truth)[0] < 1e-6


def test_small_slopes_of_a_trained_float16_head_are_not_lost():
    """dloss/dlogits near 1e-7, dloss/dweight near 1e-5: the products are computed in float32."""
    generator = torch.Generator().manual_seed(0)
    hidden, weight = 64 * torch.randn(16, 8, generator=generator), torch.randn(1000, 8, generator=generator) / 512
    targets, grads = torch.randint(1000, (16,), generator=generator).to(DEVICE), []
    for dtype, backend in ((torch.float16, "triton"), (torch.float64, "reference")):
        leaf = weight.half().to(DEVICE, dtype).requires_grad_()
        logp = linear_token_stats(hidden.half().to(DEVICE, dtype), leaf, targets, backend=backend).logp
        (grad,) = torch.autograd.grad(1e-4 * logp.sum(), leaf)
        grads.append(grad.double())
    rest = torch.ones(1000, dtype=torch.bool, device=DEVICE).index_fill_(0, targets, False)  # 1 - p_y hides the others
    assert (grads[0] - grads[1])[rest].norm() <= 0.02 * grads[1][rest].norm()


@pytest.mark.parametrize("width", [40, 3000, 40000])
@pytest.mark.parametrize("softcap", [None, 5.0])
def test_masked_blocks_and_a_single_live_token(width, softcap):
    """The first blocks (and whole spans) all -inf; all but one -inf; both like the definition."""
    logits, targets = rows(3, width, torch.float32)
    live = width - width // 8
    logits[:, :live] = -INF
    logits[1, :] = -INF
    logits[1, width - 1] = 3.0
    targets = torch.full_like(targets, width - 1)
    truth = stats_and_gradient(logits.double(), targets, "reference", softcap=softcap)
    ours = stats_and_gradient(logits, targets, "triton", softcap=softcap)
    assert max(errors(ours, truth)) < 2e-6
    assert not ours[3][:, :live].any() and not ours[3][1].any()


def test_addresses_beyond_2_to_the_31():
    """A row stride of 2^20 halves, rows 0 and 4,099 of it: offsets pass 2^32 (virtual memory, few pages touched)."""
    base = torch.empty(4100 * 2**20, dtype=torch.float16, device=DEVICE)
    logits = base.as_strided((4100, 129), (2**20, 1))
    small, targets = rows(2, 129, torch.float16)
    logits[0], logits[4099] = small[0], small[1]
    index = torch.full((4100,), -100, device=DEVICE)
    index[0], index[4099] = targets[0], targets[1]
    far = token_stats(logits, index, backend="triton")
    near = token_stats(small, targets, backend="triton")
    assert all(torch.equal(a[[0, 4099]], b) for a, b in zip(far, near, strict=True))
    assert far.logp.count_nonzero() == 2


@pytest.fixture
def poison():
    """Every torch.empty is filled with NaN (integers: the largest one)."""
    was = torch.are_deterministic_algorithms_enabled(), torch.utils.deterministic.fill_uninitialized_memory
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = True
    yield
    torch.use_deterministic_algorithms(was[0])
    torch.utils.deterministic.fill_uninitialized_memory = was[1]


@pytest.mark.parametrize("backend", ["torch", "triton"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("options", [{}, {"softcap": 4.0}])
def test_unwritten_memory_is_never_read_and_every_output_is_written(request, backend, dtype, options):
    """Poisoned or not, the same bits, without a NaN: padding, ignored rows, several tiles, all gradients."""

    def everything():
        logits, targets = rows(5, 301, dtype)
        targets[2] = -100
        out = stats_and_gradient(logits, targets % 290, backend, vocab_size=290, **options)
        out += stats_and_gradient(logits, torch.where(targets < 0, targets, targets % 290), backend, vocab_size=290)
        for trained in (False, True):
            hidden = torch.randn(5, 16, generator=torch.Generator().manual_seed(1)).to(DEVICE, dtype).requires_grad_()
            weight = logits.T[:, :1].expand(301, 16).clone().requires_grad_(trained)
            call = {"entropy_grad": True, "vocab_size": 290, "max_memory_mib": 0.03, "backend": backend, **options}
            stats = linear_token_stats(hidden, weight, torch.where(targets < 0, targets, targets % 290), **call)
            leaves = [hidden, weight] if trained else [hidden]
            out += [*stats, *torch.autograd.grad(sum(x.sum() for x in stats), leaves)]
        return [x.detach() for x in out]

    clean = everything()
    request.getfixturevalue("poison")
    assert torch.empty(3).isnan().all()
    poisoned = everything()
    assert all(x.isfinite().all() for x in clean)
    assert all(torch.equal(a, b) for a, b in zip(clean, poisoned, strict=True))


def test_two_runs_are_equal_to_the_bit_and_a_row_does_not_depend_on_its_neighbours():
    logits, targets = rows(7, 20000, torch.bfloat16)
    first = stats_and_gradient(logits, targets, "triton", temperature=0.8)
    again = stats_and_gradient(logits, targets, "triton", temperature=0.8)
    alone = stats_and_gradient(logits[4:5], targets[4:5], "triton", temperature=0.8)
    assert all(torch.equal(a, b) and torch.equal(a[4:5], c) for a, b, c in zip(first, again, alone, strict=True))


@pytest.mark.parametrize("ignored", [0, 1])
def test_the_gradient_may_take_the_place_of_the_logits(ignored):
    for backend in ("torch", "triton", "reference"):
        logits, targets = rows(6, 40, torch.float32)
        targets[:ignored], before = -100, logits.clone()
        expected = stats_and_gradient(logits, targets, backend)[3]
        leaf = logits.clone().requires_grad_()
        middle = leaf * 1.0
        out = token_stats(middle, targets, backend=backend, inplace_backward=True)
        loss = sum((i + 1) * x.sum() for i, x in enumerate(out))
        loss.backward(retain_graph=True)
        assert torch.equal(leaf.grad, expected) and torch.equal(logits, before)
        if backend != "reference":  # which has no use for it
            assert torch.equal(middle, expected)
            with pytest.raises(RuntimeError, match="modified by an inplace operation"):
                loss.backward()


@pytest.mark.parametrize("backend", ["torch", "triton"])
@pytest.mark.parametrize(
    "view",
    [
        lambda x: x[:1].expand(4, 3),
        lambda x: x.flatten()[:10].as_strided((4, 4), (2, 1)),
        lambda x: x[:, :1].expand(4, 3),
    ],
)
def test_a_gradient_that_would_overwrite_itself_gets_memory_of_its_own(backend, view):
    leaf, targets = torch.randn(4, 3, generator=torch.Generator().manual_seed(0)).to(DEVICE), torch.arange(4) % 3
    grads = []
    for in_place in (True, False):
        start = leaf.clone().requires_grad_()
        out = token_stats(view(start * 1.0), targets.to(DEVICE), backend=backend, inplace_backward=in_place)
        grads += torch.autograd.grad(out.logp.sum(), start)
    assert torch.equal(*grads)


@pytest.mark.parametrize("kernel", [x for x in vars(kernels) if x.endswith("_kernel")])
def test_no_length_of_a_batch_compiles_anew(kernel):
    """Numbers of rows and offsets of tiles are neither constants nor specialised on."""
    source = getattr(kernels, kernel)
    if DEVICE == "cpu":  # what the interpreter was given, as the compiler would see it
        source = triton.JITFunction(source.fn, **source.kwargs)
    parameters = {p.name: p for p in source.params}
    assert "n" in parameters
    for name, parameter in parameters.items():
        if name in ("n", "first", "parts"):
            assert parameter.do_not_specialize
        if name in ("n", "first", "parts", "heat_ptr", "heat_step", "width", "size"):
            assert not parameter.is_constexpr


def test_half_precision_products_ask_cuda_for_float32_results():
    """Their branch runs on CUDA only; the meta device checks that the operators and these arguments exist."""
    a, b = (torch.empty(s, dtype=torch.bfloat16, device="meta") for s in ((4, 8), (8, 5)))
    out = torch.empty(4, 5, device="meta")
    assert torch.mm(a, b, out_dtype=torch.float32, out=out) is out
    assert torch.addmm(out, a, b, out_dtype=torch.float32, out=out) is out


def test_triton_on_the_cpu_needs_the_interpreter(monkeypatch):
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    with pytest.raises(ValueError, match="the tensors are on cpu; use backend='torch', or set TRITON_INTERPRET=1"):
        token_stats(torch.zeros(1, 3), torch.tensor([0]), backend="triton")
    monkeypatch.setattr("vocab_kernels.checks.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="triton is not installed"):
        token_stats(torch.zeros(1, 3), torch.tensor([0]), backend="triton")


@pytest.mark.parametrize("width, cap", [(151936, 128), (262144, 16), (50257, 1)])
@pytest.mark.parametrize(
    "keep, panels", [(0, torch.bfloat16), (1, torch.bfloat16), (2, torch.bfloat16), (2, torch.float32)]
)
def test_a_tile_fits_its_memory(width, cap, keep, panels):
    """The plan of a batch that could not be allocated here, by arithmetic."""
    hidden = torch.empty(4096, 2048, dtype=panels, device="meta")
    weight = torch.empty(width, 2048, dtype=panels, device="meta")
    layer = Layer(hidden, weight, None, None, None, torch.empty(4096, dtype=torch.int64, device="meta"))
    height, columns = triton_backend._plan(layer, Options(1.0, None, cap * 2**20), keep, panels)
    tile = triton_backend.Tile(height, columns, keep, torch.float32, panels, torch.device("meta"))
    assert tile.cells.numel() * 4 + height * 512 <= cap * 2**20
    assert columns <= triton_backend.TILE[4] and height * columns * 4 >= cap * 2**20 / 5
    logits, out = tile.views(columns)
    assert logits.shape == (height, columns) and out.shape == (height * max(keep, 1), columns)
