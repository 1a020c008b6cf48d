"""What a step's memory goes into, and what to change when it runs out.

Estimates, in bytes, of the two moments that can run out: a micro-batch between its forward and its backward pass, and
sampling. L, H, I, r: tokens of a row, hidden size, intermediate size, LoRA rank; n, k, d: heads, key/value heads, head
size; e: bytes of a number in the compute dtype; N: norms a layer. LoRA computes in float32, so that e < 4 gives every
adapted layer a float32 copy of its input, and e = 4 gives the layers with one input one tensor. Kept a token and layer:

    float32    N H (norms) + 7 r (A's outputs) + n (attention's logsumexp) + LoRA's inputs: q k v, gate up, o, down
               = 2 H + I for e = 4 (o's input is the attention's output)         5 H + n d + I for e < 4
               and (n + k) d where queries and keys have norms
    e bytes    4 n d (queries, keys, values, output; keys and values repeated to n heads)
               + 3 I (gate, its activation, up) + L (the mask, which every layer converts)

Packed rows (poc.packing) take masks of ours, one number a pair of tokens and kind of layer, made once. Attention that
is computed plainly (eager) keeps its n L probabilities as well, in float32 and, for e < 4, in e bytes;
torch's sdpa keeps none on the CPU, and is taken to keep none on CUDA, where none of this was checked. The head keeps H
float32 numbers of a trained token (no logits).

Left out: buffers inside a layer, the head's tiles (at most 128 MiB) and what the allocator cannot use. For
architectures unlike Llama (experts, no gate, attention without scores) the figures are guesses. Nothing is measured,
changed or retried here.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import torch

from poc.config import Train
from poc.decode import PREFILL, ROOM
from poc.models import NF4_BLOCK, Policy
from poc.packing import best_size

MIB = 2**20
FLOAT32 = 4
ADAPTED = 7  # linear layers in a layer of the body
NF4_BYTES = 0.5 + 1 / NF4_BLOCK + 4 / (NF4_BLOCK * 256)  # of a weight: 4 bits, an 8-bit scale a block, a scale of those
MATTERS = 0.05  # share of all memory: a smaller rank that saves less is not worth its price
SIGNS = (
    "DefaultCPUAllocator", "CUDA out of memory", "CUDA error: out of memory", "CUBLAS_STATUS_ALLOC_FAILED",
    "CUDNN_STATUS_ALLOC_FAILED", "std::bad_alloc",
)  # fmt: skip
During = Literal["update", "rollout"]


@dataclass(frozen=True, slots=True)
class Shape:
    """A policy, as far as its memory goes. Counts are numbers, not bytes, where nothing else is said."""

    layers: int
    hidden: int
    intermediate: int
    heads: int
    kv_heads: int
    head_dim: int
    vocabulary: int  # without padding rows
    itemsize: int  # bytes of the compute dtype
    weights: int  # bytes of the frozen weights as they are stored
    linear: int  # of these weights, how many lie in linear layers that NF4 can pack
    rank: int
    adapter: int  # trained parameters
    norms: int = 2  # a layer, over H
    head_norms: bool = False  # queries and keys have norms of their own
    eager: bool = False
    sliding: int = 0  # layers whose cache ends after `window` tokens
    window: int = 0
    masks: int = 0  # kinds of layers that take a mask of ours: packed rows; 0: each row holds one completion
    cost: float = 0.0  # poc.packing: FLOPs of attention a token and key over FLOPs of the layers a token
    merges: bool = False  # the adapted weights are held twice while sampling
    head_copy: bool = False  # and the head


@dataclass(frozen=True, slots=True)
class Remedy:
    """What to write, about how many MiB that saves, and what it costs."""

    setting: str
    saving: float
    cost: str


def shape_of(policy: Policy) -> Shape:
    """Read from the modules where they tell, else from the transformers configuration.

    Where that is silent: as many key/value heads as heads, heads of 64 numbers, an intermediate size of 4 H.
    """
    config = policy.model.get_base_model().config.get_text_config()
    hidden, layers = policy.head.weight.shape[1], policy.layers()
    heads = _read(config, "num_attention_heads", max(1, hidden // 64))
    adapted = policy.adapted()
    norms = [name for name, module in layers[0].named_modules() if "Norm" in type(module).__name__]
    of_heads = [name for name in norms if name.endswith(("q_norm", "k_norm"))]
    return Shape(
        layers=len(layers), hidden=hidden, intermediate=_read(config, "intermediate_size", 4 * hidden), heads=heads,
        kv_heads=_read(config, "num_key_value_heads", heads), head_dim=_read(config, "head_dim", hidden // heads),
        vocabulary=policy.head.vocab_size, itemsize=policy.dtype.itemsize,
        weights=sum(_stored(p) for p in policy.model.parameters() if not p.requires_grad),
        linear=sum(module.in_features * module.out_features for module in adapted),
        rank=policy.model.peft_config["default"].r, adapter=sum(p.numel() for p in policy.trainable()),
        norms=len(norms) - len(of_heads), head_norms=bool(of_heads),
        eager=getattr(config, "_attn_implementation", "sdpa") == "eager",
        sliding=_read(config, "layer_types", []).count("sliding_attention"),
        window=_read(config, "sliding_window", 0),
        masks=len(policy.windows) if policy.packs else 0, cost=policy.attention_cost, merges=policy.merges,
        head_copy=policy.merges and policy.device.type == "cpu",
    )  # fmt: skip


def _read(config, name: str, fallback):
    """A configuration's entry; `fallback` where it is missing or None."""
    value = getattr(config, name, None)
    return fallback if value is None else value


def _stored(parameter: torch.nn.Parameter) -> int:
    """Bytes of a weight, with the scales of a packed one."""
    state = getattr(parameter, "quant_state", None)
    scales = [] if state is None else [state.absmax, *([state.state2.absmax] if state.nested else [])]
    return sum(x.numel() * x.element_size() for x in (parameter, *scales))


def weight_bytes(shape: Shape) -> int:
    """The frozen weights as they are, and the adapter's 4 bytes a parameter."""
    return shape.weights + FLOAT32 * shape.adapter


def optimizer_bytes(shape: Shape, train: Train | None = None) -> int:
    """AdamW on the adapter: the gradient and two moments, 3 * 4 bytes a parameter, all of which live on between steps.

    With 8-bit moments 4 + 2.
    """
    eight = train is not None and train.optimizer == "adamw8bit"
    return (FLOAT32 + 2 if eight else 3 * FLOAT32) * shape.adapter


def activation_bytes(shape: Shape, rows: int, length: int, packed: bool = False, recompute: bool = False) -> int:
    """What autograd keeps of a micro-batch: rows * length * (layers * kept + 4 H), kept as the module says.

    An upper estimate: as if every row were `length` tokens and all of them trained. `packed`: with masks of ours, made
    once; else every layer makes one. `recompute`: a layer's input, and all of one layer.
    """
    tokens, layer = rows * length, _kept(shape, length, packed)
    masks = rows * length * length * shape.itemsize * shape.masks if packed else 0
    kept = shape.hidden * shape.itemsize * shape.layers + layer if recompute else shape.layers * layer
    return tokens * (kept + FLOAT32 * shape.hidden) + masks


def pass_bytes(shape: Shape, rows: int, group: int, prompt: int, answer: int, recompute: bool = False) -> int:
    """`activation_bytes` of `rows` completions of `answer` tokens, in groups behind prompts of `prompt` tokens."""
    k = together(shape, rows, group, prompt, answer)
    return activation_bytes(shape, -(-rows // k), prompt + k * answer, k > 1, recompute)


def together(shape: Shape, rows: int, group: int, prompt: int, answer: int) -> int:
    """Completions that share a row (poc.packing) where `rows` of them are passed at once."""
    return best_size(prompt, [answer] * group, rows, shape.cost) if shape.masks else 1


def _kept(s: Shape, length: int, packed: bool) -> int:
    """Bytes that a layer keeps of a token."""
    attention, wide = s.heads * s.head_dim, s.itemsize == FLOAT32
    inputs = (2 * s.hidden if wide else 5 * s.hidden + attention) + s.intermediate
    own_norms = (s.heads + s.kv_heads) * s.head_dim if s.head_norms else 0
    floats = s.norms * s.hidden + ADAPTED * s.rank + s.heads + inputs + own_norms
    mask = 0 if packed else length * s.itemsize
    scores = s.heads * length * (FLOAT32 + (0 if wide else s.itemsize)) if s.eager else mask
    return FLOAT32 * floats + s.itemsize * (4 * attention + 3 * s.intermediate) + scores


def cache_bytes(shape: Shape, rows: int, length: int) -> int:
    """Keys and values: 2 e k d bytes a row, layer and token; layers with a window hold that many tokens at most."""
    tokens = (shape.layers - shape.sliding) * length + shape.sliding * min(length, shape.window)
    return 2 * shape.itemsize * shape.kv_heads * shape.head_dim * tokens * rows


def draw_bytes(shape: Shape, rows: int) -> int:
    """Drawing a token: 16 V bytes a row, for float32 logits and three tables of that size."""
    return rows * shape.vocabulary * 4 * FLOAT32


def prefill_bytes(shape: Shape, prompts: int, length: int) -> int:
    """The widest moment of computing prompts: three numbers of the intermediate size a token, and the residual's."""
    tokens = max(length, min(prompts * length, PREFILL))
    return tokens * (3 * shape.intermediate + 4 * shape.hidden) * FLOAT32


def sampling_bytes(shape: Shape, rows: int, length: int) -> int:
    """The cache at `length` tokens, twice in the one layer that grows, what drawing a token takes, merged weights."""
    merged = (shape.linear * shape.merges + shape.vocabulary * shape.hidden * shape.head_copy) * shape.itemsize
    return cache_bytes(shape, rows, length + ROOM) + draw_bytes(shape, rows) + merged


def sampled_rows(train: Train) -> int:
    """Completions that are sampled at once: whole groups, at most `sample_rows` unless one group is more."""
    prompts = train.prompts_per_step * train.rollout_reuse
    return min(prompts, max(1, train.sample_rows // train.group_size)) * train.group_size


def updated_rows(train: Train) -> int:
    """Completions of the largest micro-batch."""
    return min(train.micro_batch, train.prompts_per_step * train.group_size)


def step_bytes(shape: Shape, train: Train, prompt_tokens: int, during: During) -> int:
    """All that is held at one time in the update or in the rollout. `train`: with its max_new_tokens filled in."""
    if train.max_new_tokens is None:
        raise ValueError("train.max_new_tokens is None: the estimate needs the number that the domain gives it")
    length = prompt_tokens + train.max_new_tokens
    if during == "update":
        rows, group, answer = updated_rows(train), train.group_size, train.max_new_tokens
        passing = pass_bytes(shape, rows, group, prompt_tokens, answer, bool(train.recompute))
    else:
        rows = sampled_rows(train)
        prefill = prefill_bytes(shape, rows // train.group_size, prompt_tokens)
        passing = max(prefill, sampling_bytes(shape, rows, length))
    return weight_bytes(shape) + optimizer_bytes(shape, train) + passing


def remedies(
    shape: Shape, train: Train, prompt_tokens: int, during: During, quantized: bool, cuda: bool
) -> list[Remedy]:
    """What would save memory, cheapest for the user first: what takes longer, then what changes the run.

    `train`: as it was when the memory ran out; `prompt_tokens`: the longest prompt. Each remedy is taken alone.
    """
    before = step_bytes(shape, train, prompt_tokens, during)
    found = []
    for setting, cost, other_shape, changed in _candidates(shape, train, during, quantized, cuda):
        other = train.model_copy(update=changed)
        saved = before - step_bytes(other_shape, other, prompt_tokens, during)
        if saved > (MATTERS * before if other_shape.rank < shape.rank else 0):
            found.append(Remedy(setting, saved / MIB, cost))
    return [*found, Remedy("a smaller model", before / 2 / MIB, "for one half as large")]


def _candidates(
    shape: Shape, train: Train, during: During, quantized: bool, cuda: bool
) -> Iterator[tuple[str, str, Shape, dict[str, int]]]:
    """(what to write, its cost, the shape and the options of `train` with it), each about half of what is now."""
    for name, value, cost in _smaller(train, during):
        if name == "recompute" or 0 < value < getattr(train, name):
            yield f"--set train.{name}={str(value).lower()}", cost, shape, {name: value}
    if cuda and not quantized:
        packed = shape.weights - round(shape.linear * (shape.itemsize - NF4_BYTES))
        yield "--set quantization=nf4", "rounds the weights to 4 bits", replace(shape, weights=packed), {}
    if rank := shape.rank // 2:
        half = replace(shape, rank=rank, adapter=shape.adapter * rank // shape.rank)
        yield f"--set lora.rank={rank}", "the adapter can learn less", half, {}


def _smaller(train: Train, during: During) -> Iterator[tuple[str, int, str]]:
    if during == "update":
        yield "micro_batch", updated_rows(train) // 2, "slower only"
        if not train.recompute:
            yield "recompute", True, "updates take half as long again"
    else:
        half = sampled_rows(train) // 2
        yield "sample_rows", max(half // train.group_size, 1) * train.group_size, "slower only"
    yield "max_new_tokens", train.max_new_tokens // 2, "longer answers are cut off"
    if during == "rollout" and sampled_rows(train) == train.group_size:  # else sample_rows does as much for less
        yield "group_size", max(train.group_size // 2, 2), "fewer answers to compare"


def out_of_memory_message(
    shape: Shape, train: Train, prompt_tokens: int, during: During, *, step: int, started: int, quantized: bool,
    cuda: bool,
) -> str:  # fmt: skip
    """One line with the three cheapest remedies. `started`: micro_batch or sample_rows before it was halved."""
    name = "micro_batch" if during == "update" else "sample_rows"
    now = getattr(train, name)
    ways = remedies(shape, train, prompt_tokens, during, quantized, cuda)[:3]
    listed = "; ".join(f"{way.setting} saves {_about(way.saving)} ({way.cost})" for way in ways)
    where = f"out of memory in step {step}'s {during} at train.{name} = {now}{_halved(started, now)}"
    return f"{where}. Cheapest ways out: {listed}"


def _halved(started: int, now: int) -> str:
    """ " after halving it twice (from 16)", or nothing."""
    times, value = 0, started
    while value > now:
        times, value = times + 1, value // 2
    often = {1: "once", 2: "twice"}.get(times, f"{times} times")
    return f" after halving it {often} (from {started})" if times else ""


def _about(mib: float) -> str:
    return f"about {mib:,.0f} MiB" if mib >= 1 else "under 1 MiB"


def is_out_of_memory(error: BaseException) -> bool:
    """Whether memory ran out: on the CPU torch says so in a plain RuntimeError, and CUDA's libraries do."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and any(sign in str(error) for sign in SIGNS)
