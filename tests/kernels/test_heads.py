"""Heads that are not a plain weight: 4-bit, with a LoRA part, or both; both backends against the dense computation."""

import pytest
import torch
from bitsandbytes.functional import dequantize_4bit
from bitsandbytes.nn import Params4bit
from vocab_kernels import linear_token_stats

OURS = pytest.mark.parametrize("name", ["torch", "triton", "reference"])


def packed(weight, kind="nf4", nested=True, dtype=torch.float32, block=64, **options):
    weight = weight.to(dtype)
    return Params4bit(weight, quant_type=kind, compress_statistics=nested, blocksize=block, **options)._quantize("cpu")


def dense(weight):
    return dequantize_4bit(weight.data, weight.quant_state)


def case(rows=11, size=64, width=300, seed=0):
    generator = torch.Generator().manual_seed(seed)
    hidden = torch.randn(rows, size, generator=generator)
    weight = torch.randn(width, size, generator=generator) * 0.3
    return hidden.requires_grad_(), weight, torch.randint(width, (rows,), generator=generator)


def assert_close(ours, truth, tolerance):
    for a, b in zip(ours, truth, strict=True):
        assert (a - b).abs().max() <= tolerance * b.abs().max().clamp(min=1.0)


@OURS
@pytest.mark.parametrize("kind", ["nf4", "fp4"])
@pytest.mark.parametrize("nested", [True, False])
@pytest.mark.parametrize("options", [{}, {"softcap": 4.0, "entropy_grad": True}, {"vocab_size": 290}])
def test_a_4bit_head_is_its_dequantised_weight(run, name, kind, nested, options):
    hidden, weight, targets = case(size=128)
    head, targets = packed(weight, kind, nested), targets % 290
    unpacked = dense(head)
    truth = run(lambda h: linear_token_stats(h, unpacked, targets, backend="reference", **options), [hidden])
    for cap in (128, 0.25):
        ours = run(lambda h, c=cap: linear_token_stats(h, head, targets, backend=name, max_memory_mib=c, **options),
                   [hidden])  # fmt: skip
        assert_close(ours, truth, 2e-6)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_4bit_head_has_the_values_that_bitsandbytes_computes(dtype):
    from vocab_kernels.head import Packed

    weight = torch.randn(40, 192)
    for block in (64, 32) if dtype == torch.float16 else (64,):
        head = packed(weight, dtype=dtype, block=block)
        ours = Packed.of(head)
        assert torch.equal(ours.take(slice(7, 31)).to(dtype), dense(head)[7:31])
        rows = torch.tensor([5, 5, 39, 0])
        assert torch.equal(ours.take(rows).to(dtype), dense(head)[rows])
        assert ours.narrow(9).shape == (9, 192)


def test_a_4bit_head_whose_rows_are_not_whole_blocks_is_refused():
    with pytest.raises(ValueError, match="H=96, not a multiple of its block 64"):
        linear_token_stats(torch.zeros(2, 96), packed(torch.randn(10, 96)), torch.tensor([0, 1]))


@OURS
@pytest.mark.parametrize("targets", [[], [-100, -100]])
def test_a_4bit_head_without_a_token(name, targets):
    hidden = torch.randn(len(targets), 64, requires_grad=True)
    out = linear_token_stats(
        hidden, packed(torch.randn(20, 64)), torch.tensor(targets, dtype=torch.int64), backend=name
    )
    (out.logp + out.self_certainty).sum().backward()
    assert hidden.grad.shape == hidden.shape and not hidden.grad.any()


def test_a_4bit_head_that_bitsandbytes_repacked_is_refused_and_one_not_yet_packed_is_dense():
    head = packed(torch.randn(10, 64))
    head.quant_state.packing_format_for_cpu = True
    with pytest.raises(ValueError, match="repacked by bitsandbytes"):
        linear_token_stats(torch.zeros(2, 64), head, torch.tensor([0, 1]))
    hidden, weight, targets = case(rows=3, width=20)
    early = Params4bit(weight, requires_grad=False, quant_type="nf4")
    assert torch.equal(
        linear_token_stats(hidden, early, targets).logp, linear_token_stats(hidden, weight, targets).logp
    )


def test_how_bitsandbytes_stores_the_bytes_does_not_matter():
    hidden, weight, targets = case()
    plain = linear_token_stats(hidden, packed(weight), targets)
    stored = linear_token_stats(hidden, packed(weight, quant_storage=torch.bfloat16), targets)
    assert torch.equal(plain.logp, stored.logp)


@pytest.mark.parametrize("name", ["torch", "triton"])
def test_a_4bit_head_is_unpacked_under_the_cap(live_memory, name):
    hidden, weight, targets = case(rows=10, size=512, width=4000)
    head = packed(weight)
    with live_memory:
        linear_token_stats(hidden, head, targets, max_memory_mib=1, backend=name).logp.sum().backward()
    assert live_memory.peak <= 2**20 + 10 * (160 + 512 * 4 * 3)
    assert weight.numel() * 4 > 4 * 2**20


def merged(weight, a, b, scale):
    return weight + scale * b @ a


LORA = [(True, True), (True, False), (False, True)]


@OURS
@pytest.mark.parametrize("trained", LORA)
@pytest.mark.parametrize("options", [{}, {"softcap": 4.0, "entropy_grad": True, "temperature": 0.6}])
def test_a_lora_head_is_the_merged_weight(run, name, trained, options):
    """Gradients of hidden, A and B, and with a trained weight of that too."""
    hidden, weight, targets = case(size=6, width=150)
    hidden, weight = hidden.detach().double().requires_grad_(trained[0]), weight.double()
    a = torch.randn(3, 6, dtype=torch.float64).requires_grad_(trained[1])
    b = torch.randn(150, 3, dtype=torch.float64).requires_grad_(trained[1])
    targets[3] = -100

    def truth(h, low, up):
        return linear_token_stats(h, merged(weight, low, up, 0.5), targets, backend="reference", **options)

    def ours(h, low, up, cap):
        more = {"lora": (low, up, 0.5), "max_memory_mib": cap, "backend": name, **options}
        return linear_token_stats(h, weight, targets, **more)

    for cap in (128, 0.03):
        assert_close(run(lambda *x, c=cap: ours(*x, c), [hidden, a, b]), run(truth, [hidden, a, b]), 1e-11)


@OURS
def test_a_lora_head_over_a_trained_weight_a_4bit_one_and_padding(run, name):
    hidden, weight, targets = case(width=150)
    targets = targets % 140
    a, b = torch.randn(2, 64).requires_grad_(), torch.randn(150, 2).requires_grad_()
    head = packed(weight)
    for base, parts in ((weight.requires_grad_(), 4), (head, 3)):
        unpacked = base if parts == 4 else dense(head)

        def call(h, low, up, w=base, backend=name):
            return linear_token_stats(h, w, targets, lora=(low, up, 0.3), vocab_size=140, backend=backend)

        def truth(h, low, up, w=unpacked):
            return linear_token_stats(h, merged(w, low, up, 0.3), targets, vocab_size=140, backend="reference")

        leaves = [hidden, a, b] + ([base] if parts == 4 else [])
        assert_close(run(call, leaves), run(truth, leaves), 2e-6)


@pytest.mark.parametrize("name", ["torch", "triton"])
def test_gradcheck_of_a_lora_head(name):
    hidden, weight, targets = case(rows=3, size=4, width=7)
    a, b = (torch.randn(*s, dtype=torch.float64, requires_grad=True) for s in ((2, 4), (7, 2)))

    def call(h, low, up):
        options = {"lora": (low, up, 2.0), "entropy_grad": True, "backend": name}
        return tuple(linear_token_stats(h, weight.double(), targets, **options))

    assert torch.autograd.gradcheck(call, [hidden.detach().double().requires_grad_(), a, b])


@pytest.mark.parametrize(
    "lora, message",
    [
        ((torch.zeros(2, 5), torch.zeros(9, 2), 1.0), r"A \(2, 5\) and B \(9, 2\): \[r, 4\] and \[9, r\]"),
        ((torch.zeros(2, 4), torch.zeros(9, 3), 1.0), r"A \(2, 4\) and B \(9, 3\)"),
        ((torch.zeros(0, 4), torch.zeros(9, 0), 1.0), r"A \(0, 4\)"),
        ((torch.zeros(2, 4), torch.zeros(9, 2, dtype=torch.int64), 1.0), "lora's B has dtype torch.int64"),
        ((torch.zeros(2, 4), torch.zeros(9, 2), float("inf")), "scale inf"),
        ((torch.zeros(2, 4), torch.zeros(9, 2)), r"\(A, B, scale\) is needed"),
    ],
)
def test_what_does_not_fit_is_named(lora, message):
    with pytest.raises(ValueError, match=message):
        linear_token_stats(torch.zeros(2, 4), torch.zeros(9, 4), torch.tensor([0, 1]), lora=lora)
