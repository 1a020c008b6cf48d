"""Estimates of memory against what autograd, the cache and the optimizer really hold; remedies; which errors count."""

import json
import subprocess
import sys
from dataclasses import replace
from itertools import accumulate
from pathlib import Path

import pytest
import torch
import transformers

import poc.models
from poc import memory
from poc.config import RunConfig, Train
from poc.configfile import load
from poc.draw import draw, left_pad
from poc.lab import tokenizer
from poc.memory import MIB, Shape, is_out_of_memory, out_of_memory_message, remedies, shape_of
from poc.models import load_policy
from poc.packing import TokenBatch, pack
from poc.records import Episode
from poc.update import token_logp

SIZES = [(2, 8), (2, 16), (4, 64), (8, 64), (4, 128), (2, 240)]
NEAR = 0.1  # the estimates promise a quarter; on these models they are within 7 %
SMALL = {
    "hidden_size": 64, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16,
    "intermediate_size": 128, "max_position_embeddings": 256, "tie_word_embeddings": True,
}  # fmt: skip
GPT2 = {"n_embd": 64, "n_layer": 2, "n_head": 4, "n_positions": 256}
# A 1.5-billion model in bfloat16: every remedy is worth something.
LARGE = Shape(
    layers=28, hidden=1536, intermediate=8960, heads=12, kv_heads=2, head_dim=128, vocabulary=151_000, itemsize=2,
    weights=3_000_000_000, linear=1_300_000_000, rank=64, adapter=74_000_000,
)  # fmt: skip
TRAIN = Train(micro_batch=16, sample_rows=64, prompts_per_step=16, group_size=8, max_new_tokens=256)


@pytest.fixture
def make(tmp_path):
    """A policy of a random model: make(kind, sizes, quantization)."""

    def of(kind: str, sizes: dict, quantization: str = "none"):
        tok = tokenizer.build(chat=True)
        config = getattr(transformers, {"Gemma3": "Gemma3TextConfig"}.get(kind, f"{kind}Config"))
        ids = {"eos_token_id": tok.eos_token_id, "pad_token_id": tok.pad_token_id, "bos_token_id": None}
        head = "LMHeadModel" if kind == "GPT2" else "ForCausalLM"
        getattr(transformers, kind + head)(config(vocab_size=len(tok), **ids, **sizes)).save_pretrained(tmp_path)
        tok.save_pretrained(tmp_path)
        return load_policy(str(tmp_path), quantization=quantization, lora_rank=16, lora_alpha=16)

    return of


def batch_of(policy, rows: int, length: int) -> TokenBatch:
    """One completion a row, half of every row; of several one is shorter, as in a real micro-batch."""
    ids = torch.randint(1, policy.head.vocab_size, (rows, length), generator=torch.Generator().manual_seed(0)).tolist()
    half = length // 2
    return pack(
        [(row[:half], [episode(row[half : length - 2 * (rows > 1 and i == 0)])], (0.0,)) for i, row in enumerate(ids)]
    )


def episode(ids) -> Episode:
    return Episode(tuple(ids), "", True, *((0.0,) * len(ids),) * 3)


def kept_bytes(policy, rows: int, length: int) -> int:
    return kept_of(policy, batch_of(policy, rows, length))


def kept_of(policy, batch: TokenBatch) -> int:
    """Bytes that autograd keeps of one forward pass: each storage once, weights and buffers not."""
    weights = [*policy.model.parameters(), *policy.model.buffers(), policy.head.weight]
    known = {x.untyped_storage().data_ptr() for x in weights}
    kept = {}

    def keep(x):
        if (place := x.untyped_storage().data_ptr()) not in known:
            kept[place] = x  # held: another storage cannot take its place
        return x

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        result = token_logp(policy, batch, 1.0)
    assert result.requires_grad
    return sum(x.untyped_storage().nbytes() for x in kept.values())


def check_activations(policy, near: float) -> None:
    shape = shape_of(policy)
    for rows, length in SIZES:
        real, estimate = kept_bytes(policy, rows, length), memory.activation_bytes(shape, rows, length)
        assert estimate == pytest.approx(real, rel=near), (rows, length)


def test_activations_of_the_tiny_model(tiny_policy):
    check_activations(tiny_policy, NEAR)


def test_activations_of_the_lab_model():
    check_activations(load_policy("lab:base", quantization="none", lora_rank=16, lora_alpha=32), 0.02)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("quantization", ["none", "nf4"])
def test_activations_in_both_dtypes_quantised_or_not(make, monkeypatch, dtype, quantization):
    monkeypatch.setattr(poc.models, "_dtype", lambda device: dtype)
    policy = make("Llama", SMALL, quantization)
    assert policy.dtype == dtype and shape_of(policy).itemsize == dtype.itemsize
    check_activations(policy, 0.02)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("kind, norms, of_heads", [("Qwen3", 2, True), ("Gemma3", 4, True)])
def test_activations_where_there_are_more_norms(make, monkeypatch, dtype, kind, norms, of_heads):
    monkeypatch.setattr(poc.models, "_dtype", lambda device: dtype)
    policy = make(kind, SMALL)
    assert (shape_of(policy).norms, shape_of(policy).head_norms) == (norms, of_heads)
    check_activations(policy, 0.03)


def packed_batch(policy, packs: int, prompt: int, answer: int, k: int) -> TokenBatch:
    ids = torch.randint(1, policy.head.vocab_size, (packs, prompt + k * answer), generator=torch.Generator())
    starts = range(prompt, prompt + k * answer, answer)
    return pack([(row[:prompt], [episode(row[i : i + answer]) for i in starts], (0.0,) * k) for row in ids.tolist()])


@pytest.mark.parametrize("kind, near", [("Llama", 0.03), ("Gemma3", 0.04)])
@pytest.mark.parametrize("recompute", [False, True])
def test_activations_of_packed_rows(make, kind, near, recompute):
    policy = make(kind, SMALL)
    shape = shape_of(policy)
    for packs, prompt, answer, k in [(1, 10, 8, 4), (2, 30, 12, 8), (3, 8, 50, 2)]:
        batch = packed_batch(policy, packs, prompt, answer, k)
        estimate = memory.activation_bytes(shape, packs, prompt + k * answer, packed=True)
        if not recompute:
            assert estimate == pytest.approx(kept_of(policy, batch), rel=near), (packs, prompt, answer, k)
            continue
        real = whole_pass(policy, batch)
        with policy.recomputing():
            less = whole_pass(policy, batch)
        again = memory.activation_bytes(shape, packs, prompt + k * answer, packed=True, recompute=True)
        assert real - less == pytest.approx(estimate - again, rel=0.3), (packs, prompt, answer, k)


def whole_pass(policy, batch) -> int:
    """The most bytes held in a forward and backward pass."""
    return peak_bytes(lambda: token_logp(policy, batch, 1.0).sum().backward())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_plain_attention_keeps_its_probabilities(make, monkeypatch, dtype):
    monkeypatch.setattr(poc.models, "_dtype", lambda device: dtype)
    policy = make("Llama", SMALL)
    policy.model.get_base_model().set_attn_implementation("eager")
    assert shape_of(policy).eager
    check_activations(policy, 0.05)


@pytest.mark.filterwarnings("ignore:fan_in_fan_out")
def test_an_unlike_architecture_gets_a_guess_within_a_quarter(make):
    policy = make("GPT2", GPT2)  # no gate, no list called layers, no intermediate size, no key/value heads
    shape = shape_of(policy)
    assert (shape.layers, shape.intermediate, shape.kv_heads, shape.head_dim) == (2, 256, 4, 16)
    check_activations(policy, 0.25)


def test_twice_the_rows_twice_the_bytes_and_longer_rows_more_than_that():
    for shape in (LARGE, replace(LARGE, eager=True), replace(LARGE, itemsize=4)):
        one = memory.activation_bytes(shape, 3, 100)
        assert memory.activation_bytes(shape, 6, 100) == 2 * one < memory.activation_bytes(shape, 3, 200)


def cache_after(policy, rows: int, length: int) -> int:
    """Bytes of the storages of a cache that was filled token by token."""
    ids, mask = left_pad([[5]] * rows, policy)
    cache = None
    with torch.no_grad():
        for _ in range(length):
            _, cache = policy.body(ids, mask, past_key_values=cache, use_cache=True)
            mask = torch.cat([mask, mask[:, :1]], 1)
    return sum(x.untyped_storage().nbytes() for layer in cache.layers for x in (layer.keys, layer.values))


@pytest.mark.parametrize("rows, length", [(1, 3), (4, 17), (6, 40)])
def test_the_cache_exactly(tiny_policy, make, rows, length):
    windowed = make("Gemma3", SMALL | {"sliding_window": 16, "num_hidden_layers": 6})
    assert (shape_of(windowed).sliding, shape_of(windowed).window) == (5, 16)
    for policy in (tiny_policy, windowed):
        assert memory.cache_bytes(shape_of(policy), rows, length) == cache_after(policy, rows, length)


def peak_bytes(work) -> int:
    """The most bytes that torch's CPU allocator has lent out at one time while `work` runs."""
    cpu = torch.profiler.ProfilerActivity.CPU
    with torch.profiler.profile(activities=[cpu], profile_memory=True) as profile:
        work()
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == "[memory]"]
    return max(accumulate(e.nbytes() for e in sorted(events, key=lambda e: e.start_ns())))


@pytest.mark.parametrize("rows", [4, 32])
def test_drawing_a_token(rows):
    logits, uniform = torch.randn(rows, 30_000), torch.rand(rows, dtype=torch.float64)
    real = peak_bytes(lambda: draw(logits.clone(), 1.0, uniform))
    assert memory.draw_bytes(replace(LARGE, vocabulary=30_000), rows) == pytest.approx(real, rel=0.25)


def test_the_peak_of_a_whole_micro_batch(tiny_policy):
    rows, length = 16, 120
    batch = batch_of(tiny_policy, rows, length)
    token_logp(tiny_policy, batch, 1.0).sum().backward()  # the gradients are there already
    real = peak_bytes(lambda: token_logp(tiny_policy, batch, 1.0).sum().backward())
    assert memory.activation_bytes(shape_of(tiny_policy), rows, length) == pytest.approx(real, rel=0.25)


def test_weights_and_optimizer_exactly(tiny_policy):
    optimizer = torch.optim.AdamW(tiny_policy.trainable(), lr=1e-3)
    token_logp(tiny_policy, batch_of(tiny_policy, 2, 16), 1.0).sum().backward()
    optimizer.step()
    moments = [x for state in optimizer.state.values() for name, x in state.items() if name != "step"]
    held = moments + [p.grad for p in tiny_policy.trainable()]
    shape = shape_of(tiny_policy)
    assert memory.optimizer_bytes(shape) == sum(x.nbytes for x in held)
    assert memory.weight_bytes(shape) == sum(p.nbytes for p in tiny_policy.model.parameters())


def test_packing_the_weights_saves_what_the_remedy_says(make):
    plain, packed = (shape_of(make("Llama", SMALL, q)) for q in ("none", "nf4"))
    (nf4,) = (r for r in remedies(plain, TRAIN, 10, "update", False, True) if "nf4" in r.setting)
    assert plain.weights - packed.weights == pytest.approx(nf4.saving * MIB, rel=0.02)
    unpacked = plain.weights - 4 * plain.linear
    assert packed.weights - unpacked == pytest.approx(memory.NF4_BYTES * packed.linear, rel=0.005)


@pytest.mark.parametrize("length", [40, 120])
def test_a_smaller_micro_batch_saves_what_the_remedy_says(tiny_policy, length):
    train = TRAIN.model_copy(update={"micro_batch": 8, "max_new_tokens": length - 20})
    first = remedies(replace(shape_of(tiny_policy), masks=0), train, 20, "update", False, False)[0]
    assert first.setting == "--set train.micro_batch=4"
    saved = kept_bytes(tiny_policy, 8, length) - kept_bytes(tiny_policy, 4, length)
    assert first.saving * MIB == pytest.approx(saved, rel=NEAR)


def settings(during: str, *, shape=LARGE, quantized=False, cuda=True, **changed) -> list[str]:
    found = remedies(shape, TRAIN.model_copy(update=changed), 100, during, quantized, cuda)
    return [remedy.setting.removeprefix("--set ") for remedy in found]


def test_what_only_takes_longer_comes_first():
    assert settings("update", micro_batch=2) == [
        "train.micro_batch=1", "train.recompute=true", "train.max_new_tokens=128", "quantization=nf4", "lora.rank=32",
        "a smaller model",
    ]  # fmt: skip
    assert settings("update", micro_batch=2, recompute=True)[1] == "train.max_new_tokens=128"
    assert settings("rollout")[:2] == ["train.sample_rows=32", "train.max_new_tokens=128"]


def test_one_completion_a_pass_cannot_be_halved():
    assert settings("update", micro_batch=1)[:2] == ["train.recompute=true", "train.max_new_tokens=128"]
    assert settings("update", micro_batch=1, max_new_tokens=1, recompute=True)[0] == "quantization=nf4"


def test_a_limit_that_binds_nothing_is_halved_from_what_there_is():
    assert settings("update", micro_batch=1024)[0] == "train.micro_batch=64"  # 16 prompts, groups of 8
    assert settings("rollout", sample_rows=1024)[0] == "train.sample_rows=64"


def test_the_group_size_where_a_group_is_all_that_is_sampled_at_once():
    assert settings("rollout", sample_rows=7)[:2] == ["train.max_new_tokens=128", "train.group_size=4"]
    assert settings("rollout", sample_rows=1)[:2] == ["train.max_new_tokens=128", "train.group_size=4"]
    for changed in (
        {"sample_rows": 64},
        {"sample_rows": 1024},
        {"sample_rows": 8},
        {"sample_rows": 1, "group_size": 2},
    ):
        assert not [s for s in settings("rollout", **changed) if "group_size" in s]
    assert not [s for s in settings("update", sample_rows=7) if "group_size" in s]


@pytest.mark.parametrize("quantized, cuda", [(True, True), (False, False), (True, False)])
def test_nf4_only_on_cuda_and_only_once(quantized, cuda):
    assert "quantization=nf4" not in settings("update", quantized=quantized, cuda=cuda)


def test_a_smaller_rank_only_where_it_matters():
    for shape in (replace(LARGE, rank=4, adapter=5_000_000), replace(LARGE, rank=1)):
        assert not [s for s in settings("update", shape=shape, micro_batch=1) if "rank" in s]
    assert not [s for s in settings("update", micro_batch=16) if "rank" in s]


@pytest.mark.parametrize("during", ["update", "rollout"])
@pytest.mark.parametrize("sample_rows", [7, 64])
def test_each_setting_can_be_given_and_saves_what_it_says(during, sample_rows):
    train = TRAIN.model_copy(update={"sample_rows": sample_rows})
    before = memory.step_bytes(LARGE, train, 100, during)
    asked = [f"train.{key}={json.dumps(value)}" for key, value in train.model_dump().items() if value is not None]
    for remedy in remedies(LARGE, train, 100, during, False, True)[:-1]:
        config = load(RunConfig, None, [*asked, remedy.setting.removeprefix("--set ")])
        assert remedy.saving > 0 and remedy.cost
        if "train." in remedy.setting:
            saved = before - memory.step_bytes(LARGE, config.train, 100, during)
            assert remedy.saving * MIB == pytest.approx(saved)


def test_the_rank_saves_adapter_gradient_moments_and_activations():
    train = TRAIN.model_copy(update={"micro_batch": 2})
    (rank,) = (r for r in remedies(LARGE, train, 100, "update", False, True) if "rank" in r.setting)
    activations = 2 * 356 * 28 * 7 * 32 * 4
    assert rank.saving * MIB == pytest.approx(37_000_000 * 16 + activations)


def test_the_message_is_one_line_with_three_ways_out():
    train = TRAIN.model_copy(update={"micro_batch": 4})
    text = out_of_memory_message(LARGE, train, 100, "update", step=7, started=16, quantized=False, cuda=True)
    assert text.startswith(
        "out of memory in step 7's update at train.micro_batch = 4 after halving it twice (from 16). Cheapest ways "
        "out: --set train.micro_batch=2 saves about "
    )
    assert text.count(" MiB (") == 3 and "\n" not in text and "lora.rank" not in text


@pytest.mark.parametrize("started, now, words", [(8, 8, ""), (8, 4, "once (from 8)"), (9, 1, "3 times (from 9)")])
def test_the_message_counts_the_halvings(started, now, words):
    train = TRAIN.model_copy(update={"sample_rows": now})
    text = out_of_memory_message(LARGE, train, 9, "rollout", step=1, started=started, quantized=True, cuda=True)
    after = f" after halving it {words}" if words else ""
    assert text.startswith(f"out of memory in step 1's rollout at train.sample_rows = {now}{after}. Cheapest")
    assert "nf4" not in text  # it is quantised


def test_little_is_not_called_nothing(tiny_policy):
    train = TRAIN.model_copy(update={"micro_batch": 2, "max_new_tokens": 4})
    text = out_of_memory_message(
        shape_of(tiny_policy), train, 4, "update", step=1, started=2, quantized=False, cuda=False
    )
    assert "train.micro_batch=1 saves under 1 MiB (slower only)" in text


def test_an_unresolved_configuration_is_named():
    with pytest.raises(ValueError, match="train.max_new_tokens is None"):
        remedies(LARGE, Train(), 10, "update", False, True)


@pytest.mark.parametrize(
    "error, expected",
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20 MiB"), True),
        (MemoryError(), True),
        (RuntimeError("CUDA out of memory"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm`"), False),
        (RuntimeError("The size of tensor a (2) must match the size of tensor b (3)"), False),
        (RuntimeError("out of resource: shared memory"), False),
        (ValueError("CUDA out of memory"), False),
        (KeyboardInterrupt(), False),
    ],
)
def test_which_errors_mean_that_memory_ran_out(error, expected):
    assert is_out_of_memory(error) is expected


STARVED = """
import resource, torch
from poc.memory import is_out_of_memory
x = torch.ones(1000, 1000, requires_grad=True)
used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + 2**26,) * 2)
for asked in (lambda: [x * i for i in range(99)], lambda: bytearray(2**28)):
    try:
        asked()
    except BaseException as error:
        print(type(error).__name__, is_out_of_memory(error))
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="limits a Linux process")
def test_what_torch_and_python_really_raise():
    root = Path(__file__).resolve().parents[2]
    path = f"import sys; sys.path[:0] = [{str(root)!r}, {str(root / 'kernels')!r}]\n"
    done = subprocess.run([sys.executable, "-c", path + STARVED], capture_output=True, text=True, timeout=120)
    assert done.stdout.split() == ["RuntimeError", "True", "MemoryError", "True"], done.stderr
