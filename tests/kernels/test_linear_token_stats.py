"""linear_token_stats: the torch and Triton backends against the reference, their edge cases."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from vocab_kernels import linear_token_stats, token_stats

INF = math.inf
WIDTHS = [1, 2, 31, 128, 1000]
OURS = pytest.mark.parametrize("name", ["torch", "triton"])
SMALL = {"torch": 0.005, "triton": 0.03, "reference": 1}  # MiB, many tiles; the interpreter takes 1 ms a row and tile


def case(rows=17, size=6, width=31, scale=1.5, dtype=torch.float64, seed=0):
    """hidden (requires grad), weight, bias, targets."""
    generator = torch.Generator().manual_seed(seed)
    shapes = ((rows, size), (width, size), (width,))
    hidden, weight, bias = (torch.randn(*s, generator=generator, dtype=torch.float64) for s in shapes)
    targets = torch.randint(width, (rows,), generator=generator)
    return (scale * hidden).to(dtype).requires_grad_(), weight.to(dtype), bias.to(dtype), targets


def doubled(*parts):
    return [x.detach().double().requires_grad_(x.requires_grad) for x in parts]


def outcome(run, backend, hidden, weight, bias, targets, used=(0, 1, 2), **options):
    def call(h, w, b=None):
        return linear_token_stats(h, w, targets, bias=b, backend=backend, **options)

    return run(call, [hidden, weight] if bias is None else [hidden, weight, bias], used)


def worst(ours, truth):
    """Largest error, relative to the largest value where that exceeds 1; NaN if there is a NaN anywhere."""
    pairs = [(a.double(), b.double()) for a, b in zip(ours, truth, strict=True)]
    return torch.stack([(a - b).abs().max() / b.abs().max().clamp(min=1.0) for a, b in pairs]).max().item()


def compare(run, name, *parts, **options):
    """The backend, in one tile and in many, equals the reference."""
    truth = outcome(run, "reference", *parts, **options)
    for cap in (128, max(SMALL[name], 5e-5 * len(parts[1]))):
        assert worst(outcome(run, name, *parts, max_memory_mib=cap, **options), truth) < 1e-10, cap
    return truth


OPTIONS = [
    {},
    {"entropy_grad": True},
    {"softcap": 2.5},
    {"softcap": 2.5, "entropy_grad": True, "temperature": 0.6},
    {"temperature": torch.linspace(0.4, 1.8, 17), "entropy_grad": True},
]


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("options", OPTIONS)
@OURS
def test_frozen_head_equals_the_reference(run, name, width, options):
    hidden, weight, bias, targets = case(width=width)
    compare(run, name, hidden, weight, bias, targets, **options)
    compare(run, name, hidden, weight, None, targets, **options)


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("options", OPTIONS)
@OURS
def test_trainable_head_equals_the_reference(run, name, width, options):
    hidden, weight, bias, targets = case(width=width)
    compare(run, name, hidden, weight.requires_grad_(), bias.requires_grad_(), targets, **options)


@pytest.mark.parametrize("trained", [(0, 1, 0), (0, 0, 1), (1, 0, 1), (0, 1, 1)])
@OURS
def test_any_part_may_be_the_trained_one(run, name, trained):
    hidden, weight, bias, targets = case()
    parts = [x.detach().requires_grad_(bool(t)) for x, t in zip((hidden, weight, bias), trained, strict=True)]
    compare(run, name, *parts, targets, entropy_grad=True)


@pytest.mark.parametrize("used", [(0,), (1,), (2,), (0, 1), (1, 2)])
@pytest.mark.parametrize("softcap", [None, 3.0])
@pytest.mark.parametrize("frozen", [True, False])
@OURS
def test_each_output_may_be_the_only_one_used(run, name, used, softcap, frozen):
    hidden, weight, bias, targets = case()
    weight.requires_grad_(not frozen)
    compare(run, name, hidden, weight, bias, targets, used=used, softcap=softcap, entropy_grad=True)


@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("softcap", [None, 3.0])
@OURS
def test_masked_padded_and_ignored(run, name, frozen, softcap):
    """-inf in the bias deletes columns (the whole first tile too), vocab_size the last ones, -100 a token."""
    hidden, weight, bias, targets = case(width=60)
    live = torch.arange(20, 50)
    targets = torch.where(torch.arange(17) % 5 == 0, -100, 20 + targets % 30)
    bias[:20] = -INF
    options = {"softcap": softcap, "vocab_size": 50, "entropy_grad": True}
    weight, bias = weight.requires_grad_(not frozen), bias.requires_grad_(not frozen)
    full = compare(run, name, hidden, weight, bias, targets, **options)
    options.pop("vocab_size")
    parts = (hidden, weight.detach()[live], bias.detach()[live], torch.where(targets < 0, targets, targets - 20))
    alone = outcome(run, "reference", *parts, **options)
    assert worst(full[:4], alone) < 1e-10
    assert full[3][::5].abs().max() == 0 and all(x[::5].abs().max() == 0 for x in full[:3])
    if not frozen:
        dead = [v for v in range(60) if v not in live.tolist()]
        assert full[4][dead].abs().max() == 0 and full[5][dead].abs().max() == 0


@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("softcap", [None, 3.0])
@OURS
def test_a_masked_target_has_logp_minus_inf_and_no_gradient(run, name, frozen, softcap):
    hidden, weight, bias, targets = case()
    bias[targets[0]] = -INF
    parts = (hidden, weight.requires_grad_(not frozen), bias.requires_grad_(not frozen), targets)
    truth = outcome(run, "reference", *parts, softcap=softcap, entropy_grad=True)
    for cap in (128, SMALL[name]):
        ours = outcome(run, name, *parts, softcap=softcap, entropy_grad=True, max_memory_mib=cap)
        assert ours[0][0] == -INF and worst(ours[1:], truth[1:]) < 1e-10
        options = {"bias": bias, "softcap": softcap, "max_memory_mib": cap, "backend": name}
        logp = linear_token_stats(hidden, weight, targets, **options).logp
        (grad,) = torch.autograd.grad(logp.sum(), hidden)
        assert grad[0].abs().max() == 0 and grad[1].abs().min() > 0


@pytest.mark.parametrize("softcap", [None, 3.0])
@OURS
def test_all_but_one_masked(run, name, softcap):
    hidden, weight, _, targets = case(width=40)
    bias = torch.full((40,), -INF, dtype=torch.float64)
    bias[33] = 0.5
    full = compare(run, name, hidden, weight, bias, torch.full_like(targets, 33), softcap=softcap, entropy_grad=True)
    assert all(x.abs().max() < 1e-14 for x in full)


@pytest.mark.parametrize("backend", ["torch", "triton", "reference"])
@pytest.mark.parametrize("tiles", ["one", "many"])
def test_nan_and_infinity_are_not_hidden_and_stay_in_their_row(backend, tiles):
    cap = 128 if tiles == "one" else SMALL[backend]
    hidden, weight, bias, targets = case()
    with torch.no_grad():
        hidden[3, 2] = math.nan
    out = linear_token_stats(hidden, weight, targets, max_memory_mib=cap, backend=backend)
    for x in out:
        assert x[3].isnan() and x.isfinite().sum() == 16
    (grad,) = torch.autograd.grad((out.logp + out.self_certainty).sum(), hidden)
    assert grad[3].isnan().all() and grad.isfinite().all(1).sum() == 16
    bias[5] = INF
    out = linear_token_stats(hidden, weight, targets, bias=bias, softcap=2.0, max_memory_mib=cap, backend=backend)
    assert all(x.isnan().all() for x in out)


@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("shift", [-200.0, 0.0, 200.0])
@pytest.mark.parametrize("width", [128, 1000])
@OURS
def test_float32_is_no_worse_than_plain_float32(run, name, frozen, shift, width):
    hidden, weight, bias, targets = case(rows=48, size=24, width=width, dtype=torch.float32)
    parts = [hidden, weight.requires_grad_(not frozen), bias + shift]
    truth = outcome(run, "reference", *doubled(*parts), targets, entropy_grad=True)
    plain = outcome(run, "reference", *parts, targets, entropy_grad=True)
    for cap in (128, 0.05 if name == "torch" else 0.2):
        ours = outcome(run, name, *parts, targets, entropy_grad=True, max_memory_mib=cap)
        for a, b, c in zip(ours, plain, truth, strict=True):
            assert worst([a], [c]) <= worst([b], [c]) + 1e-6


@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("cap", [128, 0.002])
@pytest.mark.parametrize("gap", [8.0, 18.0])
@OURS
def test_nearly_certain_tokens_keep_their_gradient_in_float32(run, name, frozen, cap, gap):
    """1 - p from 1e-2 to 1e-7, entropies likewise: to 1e-4 relative, where 1 - p_y from logp would be lost."""
    width = 31
    weight = torch.randn(width, 4, generator=torch.Generator().manual_seed(1)) * 0.1
    weight[:, 0] = 0.0
    weight[20, 0] = 1.0
    hidden = torch.tensor([[gap, 1.0, -1.0, 0.5], [gap, -1.0, 0.3, 0.2]], requires_grad=True)
    weight.requires_grad_(not frozen)
    doubles = doubled(hidden, weight)
    targets = torch.tensor([20, 20])
    for used in ((0,), (1,)):
        truth = outcome(run, "reference", *doubles, None, targets, used=used, entropy_grad=True)
        ours = outcome(run, name, hidden, weight, None, targets, used=used, entropy_grad=True, max_memory_mib=cap)
        for a, b in zip((*ours[:2], ours[3]), (*truth[:2], truth[3]), strict=True):
            assert (a - b).norm() / b.norm() < 1e-4


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("cap", [128, 0.05])
@OURS
def test_half_precision_is_accumulated_in_float32(run, name, dtype, frozen, cap):
    """Triton rounds e^(z - m) (frozen) or bfloat16 slopes for the second product; statistics are exact in both."""
    hidden, weight, bias, targets = case(rows=40, size=32, width=500, scale=0.5, dtype=dtype)
    parts = [hidden, weight.requires_grad_(not frozen), bias]
    truth = outcome(run, "reference", *doubled(*parts), targets, entropy_grad=True)
    plain = run(lambda h, w, b: token_stats(h @ w.T + b, targets, backend="reference"), parts)
    ours = outcome(run, name, *parts, targets, entropy_grad=True, max_memory_mib=cap)
    assert all(x.dtype == torch.float32 for x in ours[:3]) and all(x.dtype == dtype for x in ours[3:])
    assert worst(ours[:3], truth[:3]) < 5e-6
    for a, b, c in zip(ours[3:], plain[3:], truth[3:], strict=True):
        assert worst([a], [c]) <= worst([b], [c]) + torch.finfo(dtype).eps / 4
    if name == "torch":
        for a, b in zip(ours[3:], truth[3:], strict=True):
            assert ((a - b).abs() <= b.abs() * torch.finfo(dtype).eps + 2e-5).all()


@OURS
@pytest.mark.parametrize("part", ["bias", "lora"])
def test_a_float64_part_makes_a_half_precision_head_float64(run, name, part):
    hidden, weight, bias, targets = case(dtype=torch.bfloat16)
    doubles = {"bias": bias.double()}
    if part == "lora":
        doubles = {"lora": (torch.randn(2, 6, dtype=torch.float64), torch.randn(31, 2, dtype=torch.float64), 0.5)}
    ours, truth = (
        run(lambda h, b=backend: linear_token_stats(h, weight, targets, backend=b, **doubles), [hidden])
        for backend in (name, "reference")
    )
    assert ours[0].dtype == torch.float64 and worst(ours[:3], truth[:3]) < 1e-12
    assert worst(ours[3:], truth[3:]) < 0.01


@OURS
def test_mixed_precisions_and_autocast_do_not_lower_the_precision(name):
    hidden, weight, _, targets = case(dtype=torch.float32)
    plain = linear_token_stats(hidden, weight, targets, backend=name)
    mixed = linear_token_stats(hidden, weight.bfloat16(), targets, backend=name)
    same = linear_token_stats(hidden, weight.bfloat16().float(), targets, backend=name)
    assert torch.equal(mixed.logp, same.logp) and mixed.logp.dtype == torch.float32
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = linear_token_stats(hidden, weight, targets, backend=name)
        scored = token_stats(hidden.detach() @ weight.T, targets, backend=name)
    assert torch.equal(inside.logp, plain.logp) and scored.logp.dtype == torch.float32
    assert linear_token_stats(hidden.double(), weight, targets, backend=name).logp.dtype == torch.float64


@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("options", OPTIONS[:4])
@OURS
def test_gradcheck(name, frozen, options):
    hidden, weight, bias, targets = case(rows=3, size=2, width=5, scale=0.7)
    bias[(targets.max() + 1) % 5] = -INF if int(targets.max()) < 4 else 0.0
    inputs = [hidden] if frozen else [hidden, weight.requires_grad_(), bias.requires_grad_()]

    def call(h, w=weight, b=bias):
        return tuple(linear_token_stats(h, w, targets, bias=b, max_memory_mib=0.003, backend=name, **options))

    assert torch.autograd.gradcheck(call, inputs)


@pytest.mark.parametrize("backend", ["torch", "triton", "reference"])
@pytest.mark.parametrize("frozen", [True, False])
@pytest.mark.parametrize("targets", [[], [-100, -100]])
def test_no_rows_and_only_ignored_rows(backend, frozen, targets):
    hidden = torch.randn(len(targets), 4, requires_grad=True)
    weight = torch.randn(7, 4, requires_grad=not frozen)
    out = linear_token_stats(hidden, weight, torch.tensor(targets, dtype=torch.int64), backend=backend)
    (out.logp + out.self_certainty).sum().backward()
    assert all(x.shape == (len(targets),) and not x.any() for x in out)
    assert hidden.grad.shape == hidden.shape and not hidden.grad.any()
    assert frozen or not weight.grad.any()


@OURS
def test_strange_strides(run, name):
    """Hidden transposed, weight transposed, targets strided, an expanded and a strided upstream gradient."""
    hidden, weight, _, targets = case(rows=12)
    hidden = hidden.detach().T.contiguous().T.reshape(3, 4, 6).requires_grad_()
    weight = weight.T.contiguous().T
    targets = torch.stack([targets, targets], 1)[:, 0].reshape(3, 4)
    compare(run, name, hidden, weight, None, targets)
    grads = []
    for backend in (name, "reference"):
        out = linear_token_stats(hidden, weight, targets, backend=backend)
        loss = out.logp.mean() + out.self_certainty.T[::2].sum()
        grads += torch.autograd.grad(loss, hidden)
    assert torch.allclose(*grads, atol=1e-12)


@OURS
def test_two_backward_passes_agree_and_inputs_are_left_alone(name):
    hidden, weight, bias, targets = case()
    before = [x.detach().clone() for x in (hidden, weight, bias)]
    out = linear_token_stats(hidden, weight, targets, bias=bias, entropy_grad=True, softcap=3.0, backend=name)
    loss = out.logp.sum() + out.entropy.sum()
    (first,) = torch.autograd.grad(loss, hidden, retain_graph=True)
    (second,) = torch.autograd.grad(loss, hidden)
    assert torch.equal(first, second)
    assert all(torch.equal(a, b) for a, b in zip(before, (hidden, weight, bias), strict=True))


@OURS
@settings(deadline=None, max_examples=40)
@given(st.integers(1, 9), st.integers(1, 5), st.integers(1, 60), st.floats(0.0025, 0.02), st.integers(0, 10**6))
def test_any_tiling_equals_the_reference(name, rows, size, width, cap, seed):
    hidden, weight, bias, targets = case(rows, size, width, seed=seed)
    bias = torch.where((torch.arange(width) * 7 + seed) % 3 == 0, -INF, bias)
    bias[targets] = 0.0
    grads = []
    for backend in (name, "reference"):
        out = linear_token_stats(
            hidden, weight, targets, bias=bias, entropy_grad=True, max_memory_mib=cap, backend=backend
        )
        grads.append([*out, *torch.autograd.grad(sum((i + 1) * x.sum() for i, x in enumerate(out)), hidden)])
    assert worst(*grads) < 1e-10


@pytest.mark.parametrize(
    "change, message",
    [
        ({"weight": torch.zeros(5, 3)}, r"\(2, 4\), weight \(5, 3\)"),
        ({"weight": torch.zeros(5, 4, dtype=torch.uint8)}, "torch.uint8"),
        ({"weight": torch.zeros(0, 4)}, r"\(0, 4\)"),
        ({"weight": torch.zeros(5, 4, device="meta")}, "weight is on meta, hidden on cpu"),
        ({"bias": torch.zeros(5, device="meta")}, "bias is on meta, hidden on cpu"),
        ({"bias": torch.zeros(4)}, r"\(4,\)"),
        ({"targets": torch.tensor([[0, 1]])}, r"\(1, 2\)"),
        ({"targets": torch.tensor([0, 5])}, "target 5"),
        ({"targets": torch.tensor([0, -7])}, "target -7"),
        ({"vocab_size": 9}, "vocab_size=9"),
        ({"max_memory_mib": 0}, "max_memory_mib=0"),
        ({"max_memory_mib": 1e-4}, "MiB is the least"),
        ({"temperature": -1.0}, "temperature=-1.0"),
        ({"softcap": -3.0}, "softcap=-3.0"),
        ({"backend": "cuda"}, "'cuda': valid are 'auto', 'triton', 'torch', 'reference'"),
    ],
)
def test_what_does_not_fit_is_named(change, message):
    good = {"hidden": torch.zeros(2, 4), "weight": torch.zeros(5, 4), "targets": torch.tensor([0, 1])}
    with pytest.raises(ValueError, match=message):
        linear_token_stats(**{**good, **change})
