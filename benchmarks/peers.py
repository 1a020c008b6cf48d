"""What is compared: inputs from a seed, the float64 answer, and one function per method on the same inputs.

A method is built for a problem and then called: forward and backward, loss = (g * logp).sum(), the head frozen, entropy
computed but not differentiated. The outputs of a call are for the parity check. Nothing is timed or judged here.

What favours whom, on purpose or not:
- trl, verl and cce compute no self-certainty, cce no entropy either; ours and eager compute all three.
- eager computes entropy and self-certainty outside the graph, which is the cheapest a user could write.
- trl runs as its GRPO trainer calls it (tiles of 32,768 columns, entropy on). On a CPU narrower tiles are
  several times faster, so there is trl_2048 too: the same function with tiles of 2,048 columns. The goal is stated
  against the default; on a CPU it is trl_2048 that says how good the method is.
- the bare GEMMs write into buffers that exist already (out=): faster than new ones, whose pages come one by one.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, partial
from importlib.util import find_spec
from typing import NamedTuple

import torch
from torch import Tensor
from vocab_kernels import linear_token_stats

SEED = 0
LOGIT_STD = 3.0  # of an unpeaked row: hidden ~ N(0, 1), weight ~ N(0, 1) * LOGIT_STD / sqrt(H)
PEAKED_EVERY = 33  # odd, so that peaked rows meet both kinds of targets
MEASURES = ("logp", "entropy", "certainty", "gradient")


class Shape(NamedTuple):
    """Tokens, hidden size, vocabulary."""

    n: int
    h: int
    v: int


class Output(NamedTuple):
    """What a method computes, [N] and [N, H]; None for what it does not."""

    logp: Tensor | None = None
    entropy: Tensor | None = None
    certainty: Tensor | None = None
    gradient: Tensor | None = None


@dataclass
class Problem:
    hidden: Tensor  # [N, H], requires grad
    weight: Tensor  # [V, H], frozen
    targets: Tensor  # [N]
    g: Tensor  # [N], float32: the gradient that reaches logp

    @cached_property
    def logits_buffer(self) -> Tensor:
        return self.weight.new_empty(len(self.hidden), len(self.weight))

    def outputs(self, logp: Tensor, entropy: Tensor | None = None, certainty: Tensor | None = None) -> Output:
        """With the gradient of the loss, which this computes."""
        (gradient,) = torch.autograd.grad((self.g * logp).sum(), self.hidden)
        return Output(logp.detach(), entropy, certainty, gradient)


def make_problem(shape: Shape, dtype: torch.dtype, device: str, likely_targets: bool = True) -> Problem:
    """The same numbers on every device: made on the CPU in float32. Every PEAKED_EVERY-th row is pulled towards one
    token, more and more (the last up to a probability near 1 - 1e-9 where V is large). Targets of even rows are the
    likeliest tokens, the others random."""
    rng = torch.Generator().manual_seed(SEED)
    hidden = torch.randn(shape.n, shape.h, generator=rng)
    weight = torch.randn(shape.v, shape.h, generator=rng).mul_(LOGIT_STD / math.sqrt(shape.h))
    targets = torch.randint(shape.v, (shape.n,), generator=rng)
    g = torch.randn(shape.n, generator=rng)
    peaked = torch.arange(0, shape.n, PEAKED_EVERY)
    chosen = torch.randint(shape.v, (len(peaked),), generator=rng)
    hidden[peaked] += torch.linspace(1, 4, len(peaked))[:, None] * weight[chosen]
    if likely_targets:
        for rows in torch.arange(0, shape.n, 2).split(128):
            targets[rows] = (hidden[rows] @ weight.T).argmax(-1)
    leaf = hidden.to(device, dtype).requires_grad_()
    return Problem(leaf, weight.to(device, dtype), targets.to(device), g.to(device))


@torch.no_grad()
def exact(problem: Problem) -> Output:
    """In float64 from the numbers as stored, 64 rows at a time: N * V * 8 bytes would be too much."""
    weight, parts = problem.weight.double(), []
    for hidden, y, g in zip(*(x.split(64) for x in (problem.hidden, problem.targets, problem.g)), strict=True):
        log_p = (hidden.double() @ weight.T).log_softmax(-1)
        p = log_p.exp()
        logp = log_p.gather(-1, y[:, None]).squeeze(-1)
        entropy, certainty = -(p * log_p).sum(-1), -log_p.mean(-1) - math.log(len(weight))
        p.scatter_add_(-1, y[:, None], -torch.ones_like(p[:, :1]))
        parts.append((logp, entropy, certainty, -g.double()[:, None] * (p @ weight)))
    return Output(*(torch.cat(part) for part in zip(*parts, strict=True)))


def errors(got: Output, right: Output) -> dict[str, float | None]:
    """Largest absolute errors (nats) of the statistics; of the gradient the longest error of a row over the longest
    row, and (`gradient_row`) the largest error of a row relative to that row itself, which near certainty is tiny."""
    found = {}
    for name in MEASURES[:3]:
        mine, true = getattr(got, name), getattr(right, name)
        found[name] = None if mine is None else (mine.double() - true).abs().max().item()
    if got.gradient is None:
        return {**found, "gradient": None, "gradient_row": None}
    off, length = (got.gradient.double() - right.gradient).norm(dim=-1), right.gradient.norm(dim=-1)
    return {**found, "gradient": (off.max() / length.max()).item(), "gradient_row": (off / length).max().item()}


# Each builder takes a problem and returns the call; ImportError and ValueError mean that the method is not to be had.
Call = Callable[[], Output]


def _one_gemm(problem: Problem) -> Call:
    hidden, out = problem.hidden.detach(), problem.logits_buffer

    def call() -> Output:
        torch.mm(hidden, problem.weight.T, out=out)
        return Output()

    return call


def _two_gemms(problem: Problem) -> Call:
    first, out = _one_gemm(problem), torch.empty_like(problem.hidden)

    def call() -> Output:
        first()
        torch.mm(problem.logits_buffer, problem.weight, out=out)
        return Output()

    return call


def _ours(backend: str, problem: Problem) -> Call:
    def call() -> Output:
        return problem.outputs(*linear_token_stats(problem.hidden, problem.weight, problem.targets, backend=backend))

    return call


def _ours_forward(backend: str, problem: Problem) -> Call:
    def call() -> Output:
        with torch.no_grad():
            return Output(*linear_token_stats(problem.hidden, problem.weight, problem.targets, backend=backend))

    return call


def _eager(problem: Problem) -> Call:
    def call() -> Output:
        log_p = (problem.hidden @ problem.weight.T).float().log_softmax(-1)
        logp = log_p.gather(-1, problem.targets[:, None]).squeeze(-1)
        with torch.no_grad():
            entropy = -(log_p.exp() * log_p).sum(-1)
            certainty = -log_p.mean(-1) - math.log(log_p.shape[-1])  # logsumexp - mean - log V
        return problem.outputs(logp, entropy, certainty)

    return call


def _trl(columns: int, problem: Problem) -> Call:
    from trl.kernels import ChunkedLogProbFunction

    wanted = ("log_probs", "entropy")  # as trl.GRPOTrainer asks; the function's own default computes three fields more
    settings = (1.0, columns, None, 1.0, wanted)  # temperature, chunk size, softcap, scale

    def call() -> Output:
        found = ChunkedLogProbFunction.apply(problem.hidden, problem.weight, None, problem.targets, *settings)
        return problem.outputs(found[0], found[1].detach())

    return call


def _verl(problem: Problem) -> Call:
    from verl.utils.experimental.torch_functional import FusedLinearForPPO

    layer = FusedLinearForPPO()  # it also computes the weight's gradient, needed or not

    def call() -> Output:
        logp, entropy = layer(problem.hidden, problem.weight, problem.targets, 1.0)
        return problem.outputs(logp, entropy.detach())

    return call


def _cce(problem: Problem) -> Call:
    from cut_cross_entropy import linear_cross_entropy

    def call() -> Output:
        return problem.outputs(
            -linear_cross_entropy(problem.hidden, problem.weight, problem.targets, reduction="none").float()
        )

    return call


METHODS: dict[str, Callable[[Problem], Call]] = {
    "two_gemms": _two_gemms,
    "trl": partial(_trl, 32768),  # trl.trainer.utils._CHUNKED_LOGPROB_CHUNK_SIZE
    "trl_2048": partial(_trl, 2048),
    "eager": _eager,
    "verl": _verl,
    "cce": _cce,
    "torch": partial(_ours, "torch"),
    "triton": partial(_ours, "triton"),
    "one_gemm": _one_gemm,
    "torch_forward": partial(_ours_forward, "torch"),
    "triton_forward": partial(_ours_forward, "triton"),
}
OURS = ("torch", "triton", "torch_forward", "triton_forward")
FORWARD = ("one_gemm", "torch_forward", "triton_forward")  # no backward pass: compared with one GEMM
CUDA_ONLY = ("verl", "cce", "triton", "triton_forward")
PACKAGES = {"trl": "trl", "trl_2048": "trl", "verl": "verl", "cce": "cut_cross_entropy"}


def unavailable(name: str, device: str) -> str | None:
    """Why a method cannot run here; None if it can, as far as one can tell without trying."""
    if name in CUDA_ONLY and device != "cuda":
        return "needs CUDA"
    package = PACKAGES.get(name)
    if package and find_spec(package) is None:
        return f"{package} is not installed" + (": pip install -e '.[bench]'" if package == "trl" else "")
    return None
