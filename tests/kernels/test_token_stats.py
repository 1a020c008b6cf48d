"""token_stats: the torch and Triton backends against the reference, their edge cases, their properties."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from vocab_kernels import TokenStats, token_stats
from vocab_kernels import stats as stats_module

INF = math.inf
QUICK = settings(deadline=None, max_examples=40)
OURS = pytest.mark.parametrize("name", ["torch", "triton"])


def case(rows, width, scale=3.0, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    logits = (scale * torch.randn(rows, width, generator=generator, dtype=torch.float64)).to(dtype)
    return logits.requires_grad_(), torch.randint(width, (rows,), generator=generator)


def both(run, name, logits, targets, used=(0, 1, 2), **options):
    def call(backend):
        return run(lambda x: token_stats(x, targets, backend=backend, **options), [logits], used)

    return call(name), call("reference")


def exact(run, logits, targets, used=(0, 1, 2)):
    """The reference in float64."""
    doubled = logits.detach().double().requires_grad_()
    return run(lambda x: token_stats(x, targets, backend="reference"), [doubled], used)


def worst(ours, truth):
    """Largest error, relative to the largest value where that exceeds 1; NaN if there is a NaN anywhere."""
    pairs = [(a.double(), b.double()) for a, b in zip(ours, truth, strict=True)]
    return torch.stack([(a - b).abs().max() / b.abs().max().clamp(min=1.0) for a, b in pairs]).max().item()


@pytest.mark.parametrize("width", [1, 2, 31, 128, 1000])
@pytest.mark.parametrize("options", [{}, {"softcap": 2.5}, {"temperature": 0.7}, {"softcap": 4.0, "temperature": 1.9}])
@OURS
def test_equals_the_reference_in_float64(run, name, width, options):
    ours, truth = both(run, name, *case(13, width), **options)
    assert worst(ours, truth) < 1e-10


@pytest.mark.parametrize("used", [(0,), (1,), (2,), (0, 2)])
@OURS
def test_each_output_may_be_the_only_one_used(run, name, used):
    ours, truth = both(run, name, *case(13, 31), used)
    assert worst(ours, truth) < 1e-10


@OURS
def test_temperature_per_token_padding_and_ignored_tokens(run, name):
    logits, targets = case(12, 40)
    logits, targets = logits.detach().reshape(3, 4, 40).requires_grad_(), targets.reshape(3, 4) % 33
    targets[0, 1] = targets[2, 3] = -100
    heat = torch.linspace(0.3, 2.0, 12, dtype=torch.float64).reshape(3, 4)
    ours, truth = both(run, name, logits, targets, temperature=heat, vocab_size=33)
    alone = token_stats(logits[2, 2, :33], targets[2, 2], temperature=heat[2, 2].item())
    assert [x[2, 2].item() for x in ours[:3]] == pytest.approx([x.item() for x in alone], abs=1e-12)
    assert worst(ours, truth) < 1e-10
    assert all(x.shape == (3, 4) and x[0, 1] == 0 and x[2, 3] == 0 for x in ours[:3])
    assert ours[3][..., 33:].abs().max() == 0 and ours[3][0, 1].abs().max() == 0 and ours[3][1].abs().min() >= 0
    assert ours[3][0, 0, :33].abs().min() > 0


@OURS
def test_chunks_of_rows_change_nothing(run, name, monkeypatch):
    logits, targets = case(50, 31)
    targets[::7] = -100
    whole = both(run, name, logits, targets, softcap=5.0)[0]
    monkeypatch.setattr(stats_module, "LOGITS_BUDGET", 5000)
    parts = both(run, name, logits, targets, softcap=5.0)[0]
    assert worst(parts, whole) < 1e-13


@pytest.mark.parametrize("shift", [-200.0, 0.0, 200.0])
@pytest.mark.parametrize("width", [31, 1000])
@OURS
def test_float32_is_no_worse_than_plain_float32(run, name, shift, width):
    logits, targets = case(64, width)
    logits = (logits.detach() + shift).float().requires_grad_()
    truth = exact(run, logits, targets)
    ours, plain = both(run, name, logits, targets)
    for a, b, c in zip(ours, plain, truth, strict=True):
        assert worst([a], [c]) <= worst([b], [c]) + 3e-7


@pytest.mark.parametrize("gap", [6.0, 12.0, 18.0, 24.0])
@pytest.mark.parametrize("shift", [-200.0, 0.0, 200.0])
@OURS
def test_nearly_certain_rows_keep_relative_precision_in_float32(run, name, gap, shift):
    """1 - p down to 4e-10, entropies down to 1e-8: outputs and gradients of logp to 1e-4 relative."""
    logits = torch.zeros(2, 10)
    logits[:, 3] = gap
    logits = (logits + shift).requires_grad_()
    targets = torch.tensor([3, 4])
    truth = exact(run, logits, targets)
    ours, _ = both(run, name, logits, targets)
    for a, b in zip(ours[:3], truth[:3], strict=True):
        assert ((a - b).abs() / b.abs()).max() < 1e-4
    for used in ((0,), (1,)):
        ours, _ = both(run, name, logits, targets, used)
        truth = exact(run, logits, targets, used)
        assert ((ours[3] - truth[3]).abs() / truth[3].abs()).max() < 1e-4


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@OURS
def test_half_precision_logits_are_computed_in_float32(run, name, dtype):
    logits, targets = case(20, 300, dtype=dtype)
    truth = exact(run, logits, targets)
    ours, _ = both(run, name, logits, targets)
    assert all(x.dtype == torch.float32 for x in ours[:3]) and ours[3].dtype == dtype
    assert worst(ours[:3], truth[:3]) < 2e-6
    assert ((ours[3] - truth[3]).abs() <= truth[3].abs() * torch.finfo(dtype).eps + 1e-6).all()


@pytest.mark.parametrize("options", [{}, {"softcap": 1.5}, {"temperature": torch.tensor([0.5, 1.0, 2.0])}])
@OURS
def test_gradcheck(name, options):
    logits, targets = case(3, 5, scale=1.0)
    assert torch.autograd.gradcheck(lambda x: tuple(token_stats(x, targets, backend=name, **options)), [logits])


@pytest.mark.parametrize("softcap", [None, 3.0])
@OURS
def test_masked_tokens_are_as_if_deleted(run, name, softcap):
    logits, targets = case(6, 20)
    dead = torch.tensor([0, 1, 2, 7, 19])
    live = torch.tensor([v for v in range(20) if v not in dead.tolist()])
    masked = logits.detach().index_fill(1, dead, -INF).requires_grad_()
    where = torch.arange(6) * 2
    ours, truth = both(run, name, masked, live[where], softcap=softcap)
    alone, _ = both(run, name, logits.detach()[:, live].requires_grad_(), where, softcap=softcap)
    assert worst(ours, truth) < 1e-10 and worst(ours[:3], alone[:3]) < 1e-10
    assert ours[3][:, dead].abs().max() == 0
    assert worst([ours[3][:, live]], [alone[3]]) < 1e-10


@OURS
def test_one_live_token_and_a_target_that_is_masked(run, name):
    """Row 0: all but the target masked. Row 1: the target masked: logp -inf without gradient, the rest as usual."""
    logits = torch.tensor([[-INF, 4.0, -INF], [1.0, -INF, 2.0]], dtype=torch.float64, requires_grad=True)
    ours, truth = both(run, name, logits, torch.tensor([1, 1]))
    assert ours[0].tolist() == [0.0, -INF] and ours[1][0] == 0 and ours[2][0] == 0
    assert worst(ours[1:], truth[1:]) < 1e-12 and ours[3][1, 0] != 0
    for backend in (name, "reference"):
        (grad,) = torch.autograd.grad(token_stats(logits, torch.tensor([1, 1]), backend=backend).logp.sum(), logits)
        assert grad.tolist() == [[0.0] * 3] * 2


@pytest.mark.parametrize("backend", ["torch", "triton", "reference"])
@pytest.mark.parametrize("softcap", [None, 3.0])
@pytest.mark.parametrize("bad", [[1.0, INF, 0.0], [1.0, math.nan, 0.0], [-INF, -INF, -INF], [INF, INF, -INF]])
def test_broken_rows_come_out_as_nan_and_alone(backend, softcap, bad):
    good = [0.5, 1.0, -1.0]
    targets = torch.tensor([0, 0])
    logits = torch.tensor([bad, good], requires_grad=True)
    out = token_stats(logits, targets, softcap=softcap, backend=backend)
    alone = token_stats(torch.tensor([good]), targets[:1], softcap=softcap, backend=backend)
    for x, y in zip(out, alone, strict=True):
        assert x[0].isnan() and x[1] == y[0]
    (grad,) = torch.autograd.grad(sum(x.sum() for x in out), logits)
    assert grad[1].isfinite().all()


@pytest.mark.parametrize("backend", ["torch", "triton", "reference"])
def test_no_rows_and_only_ignored_rows(backend):
    empty = torch.zeros(0, 5, requires_grad=True)
    out = token_stats(empty, torch.zeros(0, dtype=torch.int64), backend=backend)
    assert all(x.shape == (0,) for x in out)
    sum(x.sum() for x in out).backward()
    assert empty.grad.shape == (0, 5)
    logits = torch.randn(2, 5, requires_grad=True)
    out = token_stats(logits, torch.tensor([-100, -100]), backend=backend)
    sum(x.sum() for x in out).backward()
    assert all(x.tolist() == [0, 0] for x in out) and logits.grad.abs().max() == 0


@OURS
def test_strange_strides_and_an_input_left_alone(run, name):
    logits, targets = case(24, 10)
    turned = logits.detach().reshape(10, 24).T  # not contiguous
    before = turned.clone()
    ours, truth = both(run, name, turned.requires_grad_(), targets)
    assert worst(ours, truth) < 1e-10 and torch.equal(turned, before)
    row = torch.randn(1, 10, dtype=torch.float64, requires_grad=True)
    for backend in (name, "reference"):
        token_stats(row.expand(24, 10), targets, backend=backend).logp.mean().backward()  # an expanded gradient
    half = row.grad.clone() / 2
    row.grad = None
    token_stats(row.expand(24, 10), targets, backend=name).logp.mean().backward()
    assert torch.allclose(row.grad, half, atol=1e-14)


def test_result_names_and_a_single_token():
    out = token_stats(torch.zeros(4), torch.tensor(1))
    assert isinstance(out, TokenStats) and out._fields == ("logp", "entropy", "self_certainty")
    assert out.logp.shape == () and out.logp.dtype == torch.float32


@pytest.mark.parametrize(
    "change, message",
    [
        ({"targets": torch.tensor([0, 5])}, "target 5 .token 1."),
        ({"targets": torch.tensor([-1, 0])}, "target -1 .token 0."),
        ({"targets": torch.tensor([0, 3]), "vocab_size": 3}, "target 3"),
        ({"targets": torch.tensor([0])}, r"\(1,\)"),
        ({"targets": torch.tensor([0, 1], dtype=torch.int32)}, "torch.int32"),
        ({"logits": torch.zeros(2, 5, dtype=torch.int64)}, "torch.int64"),
        ({"logits": torch.zeros(2, 0)}, r"\(2, 0\)"),
        ({"temperature": 0.0}, "temperature=0.0"),
        ({"temperature": math.nan}, "temperature=nan"),
        ({"temperature": torch.tensor([1.0, -2.0])}, "-2.0"),
        ({"temperature": torch.tensor([1.0])}, r"\(1,\)"),
        ({"temperature": torch.ones(2, requires_grad=True)}, "detach"),
        ({"targets": torch.zeros(2, dtype=torch.int64, device="meta")}, "targets is on meta, logits on cpu"),
        ({"temperature": 1e-45}, "temperature=1e-45"),
        ({"temperature": "1"}, "temperature='1'"),
        ({"temperature": torch.ones(2, dtype=torch.complex64)}, "complex64"),
        ({"logits": [[1.0, 2.0]]}, "logits is a list"),
        ({"targets": [0, 1]}, "targets is a list"),
        ({"softcap": None, "vocab_size": 5.0}, "vocab_size=5.0"),
        ({"softcap": 1e300}, r"softcap=1e\+300"),
        ({"softcap": 0.0}, "softcap=0.0"),
        ({"softcap": math.nan}, "softcap=nan"),
        ({"vocab_size": 6}, "vocab_size=6"),
        ({"vocab_size": 0}, "vocab_size=0"),
        ({"backend": "cuda"}, "'cuda': valid are 'auto', 'triton', 'torch', 'reference'"),
    ],
)
def test_what_does_not_fit_is_named(change, message):
    good = {"logits": torch.zeros(2, 5), "targets": torch.tensor([0, 1])}
    with pytest.raises(ValueError, match=message):
        token_stats(**{**good, **change})


@OURS
def test_finite_masks_have_no_nan_in_their_gradient(run, name):
    """float32's lowest number, as transformers masks: z - m is near -3e38, and the upstream gradient above 1."""
    low = torch.finfo(torch.float32).min
    logits = torch.tensor([[1.0, 2.0, 3.0, low, low]], requires_grad=True)
    out = token_stats(logits, torch.tensor([1]), backend=name)
    (grad,) = torch.autograd.grad((3 * out.entropy - 2 * out.logp).sum(), logits)
    short = logits[:, :3].detach().double().requires_grad_()
    truth = token_stats(short, torch.tensor([1]), backend="reference")
    (exact,) = torch.autograd.grad((3 * truth.entropy - 2 * truth.logp).sum(), short)
    assert (grad[:, :3] - exact).abs().max() < 1e-6 and not grad[:, 3:].any()
    assert abs(out.entropy - truth.entropy) < 1e-6


@OURS
def test_numbers_of_other_libraries_are_numbers(name):
    logits, targets = case(3, 9)
    plain = token_stats(logits, targets % 8, temperature=0.5, softcap=3.0, vocab_size=8, backend=name)
    other = {"temperature": np.float32(0.5), "softcap": torch.tensor(3.0), "vocab_size": np.int64(8)}
    assert torch.equal(plain.logp, token_stats(logits, targets % 8, backend=name, **other).logp)


@OURS
def test_a_second_derivative_is_refused(name):
    logits, targets = case(3, 5)
    with pytest.raises(RuntimeError, match="create_graph"):
        torch.autograd.grad(token_stats(logits, targets, backend=name).logp.sum(), logits, create_graph=True)


rows = arrays("float64", st.tuples(st.just(3), st.integers(1, 40)), elements=st.floats(-50, 50, width=32))


@OURS
@QUICK
@given(rows, st.floats(-200, 200), st.floats(0.1, 5.0), st.randoms(use_true_random=False))
def test_properties(name, values, shift, temperature, random):
    def stats(logits, targets, **options):
        return token_stats(logits, targets, backend=name, **options)

    logits, width = torch.from_numpy(values), values.shape[1]
    targets = torch.tensor([random.randrange(width) for _ in range(3)])
    base = stats(logits, targets)
    assert (base.self_certainty >= -1e-12).all() and (base.logp <= 0).all()
    assert (base.entropy >= 0).all() and (base.entropy <= math.log(width) + 1e-12).all()
    order = torch.tensor(random.sample(range(width), width))
    same = [
        (base, stats(logits + shift, targets)),
        (base, stats(logits[:, order], order.argsort()[targets])),
        (stats(logits, targets, temperature=temperature), stats(logits / temperature, targets)),
    ]
    for a, b in same:
        assert all(torch.allclose(x, y, rtol=1e-10, atol=1e-10) for x, y in zip(a, b, strict=True))
