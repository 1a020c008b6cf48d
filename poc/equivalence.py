"""`poc equivalence`: how alike the rewards are on the rollouts of one training run, and what they would teach.

RLIF (arXiv 2506.17219) calls self-certainty, token entropy and trajectory entropy partially equivalent. Here that is
two numbers for each pair of rewards a, b and each measured step:

    rank    (1/P') sum_p rho(rank r_a, rank r_b)  over the P' groups where both vary        (Spearman, ties averaged)
    cosine  <g_a, g_b> / (|g_a| |g_b|),   g = dL/dtheta of the policy loss with that reward alone (poc.objective)

theta are the trainable parameters, so the cosine is one of LoRA coordinates, not of whole weight matrices: under a
fresh adapter (B = 0) only B has a gradient. L is the surrogate without the KL term, which all rewards share. What does
not exist (no group varies, a gradient is zero, a label is missing) is None. A single step's cosine is noisy, because
gradients of few completions share directions: two random rewards on 16 x 8 completions of lab:base had cosines of
standard deviation 0.24. Hence the random reward among the compared ones.

The run trains as `poc train` does: nothing here draws from a global generator, fills a .grad or changes a weight. The
page is made by poc.equivalence_page.
"""

import math
from collections.abc import Callable, Sequence
from itertools import combinations
from statistics import fmean

import numpy as np
import torch
from scipy import stats
from torch import Tensor

from poc import rewards, runfolder
from poc.config import RunConfig, Train
from poc.models import Policy
from poc.objective import advantages, policy_loss
from poc.packing import batches
from poc.pilot import Job
from poc.records import Group, InputError, RunError
from poc.statistics import bootstrap_interval
from poc.trainer import reward_tables
from poc.update import token_logp

NAMES = (
    "self_certainty", "token_entropy", "trajectory_entropy", "semantic_entropy", "majority_vote", "verifiable",
    "random",  # the control: what its pairs show is chance
)  # fmt: skip
PAIRS = tuple(combinations(NAMES, 2))
FILE = "equivalence.jsonl"


def check(config: RunConfig) -> None:
    """Raises InputError for groups of two, where every rank correlation is 1 or -1, and for rollouts used twice."""
    if config.train.rollout_reuse * config.train.inner_epochs > 1:
        raise InputError(
            "train.rollout_reuse and train.inner_epochs: gradients are compared under the weights that drew the "
            "completions: leave both at 1"
        )
    if config.train.group_size < 3:
        raise InputError(
            f"train.group_size = {config.train.group_size}: two completions are ranked alike or opposite, nothing "
            "between: set it to 3 or more"
        )


def observer(job: Job, policy: Policy) -> Callable[[int, Sequence[Group]], None]:
    """The `observe` of poc.trainer.train: a line in equivalence.jsonl at step 1 and every `evaluate.every` steps."""

    def observe(step: int, groups: Sequence[Group]) -> None:
        if step == 1 or step % job.config.evaluate.every == 0:
            runfolder.append_json(job.folder / FILE, measure(step, groups, policy, job.config))

    return observe


def measure(step: int, groups: Sequence[Group], policy: Policy, config: RunConfig) -> dict:
    """{"step", "groups", "entropy", "rank", "cosine", "norm"} of one step's groups under the weights that drew them.

    rank: "a/b" -> value, low, high (95 %, over groups) and groups (where both vary); cosine: "a/b" -> number; norm:
    name -> length of the gradient. `entropy`: nats per sampled token. None: undefined. Raises RunError for a gradient
    that is not finite.
    """
    parts, volume = reward_tables(*_alone(config), groups, config.model_copy(update={"label_fraction": None}))
    gradients = {
        name: gradient(policy, groups, advantages({name: parts[name]}, {name: volume[name]}), config.train)
        for name in NAMES
        if name != "verifiable" or all(group.example.answer is not None for group in groups)
    }
    norms = {name: _norm(name, step, gradients.get(name)) for name in NAMES}
    ranked = {name: tied(parts[name], groups) for name in NAMES}
    return {
        "step": step,
        "groups": len(groups),
        "entropy": fmean(x for group in groups for episode in group.episodes for x in episode.entropy),
        "rank": {f"{a}/{b}": rank_agreement(ranked[a], ranked[b]) for a, b in PAIRS},
        "cosine": {f"{a}/{b}": cosine(gradients.get(a), gradients.get(b)) for a, b in PAIRS},
        "norm": norms,
    }


def _alone(config: RunConfig) -> tuple[dict, dict]:
    """All compared rewards with the run's options, and the weight that each has when it is alone."""
    weights = dict.fromkeys(NAMES, 1.0)
    return rewards.select(config.model_copy(update={"reward": weights})), weights


def tied(part: Tensor, groups: Sequence[Group]) -> list[list[float]]:
    """Rewards [P, G] where equal completions of a group have equal ones.

    Nothing promises that two rows of a batch are computed alike to the last bit: rounding must not rank them.
    """
    return [_tied(row, group) for row, group in zip(part.tolist(), groups, strict=True)]


def _tied(values: list[float], group: Group) -> list[float]:
    completions = [episode.token_ids for episode in group.episodes]
    known = dict(zip(completions, values, strict=True))
    return [known[completion] for completion in completions]


def rank_agreement(a: Sequence[Sequence[float]], b: Sequence[Sequence[float]]) -> dict:
    """Mean rank correlation of two tables [P, G] with its interval over groups; None where no group varies in both."""
    found = [rank_correlation(x, y) for x, y in zip(a, b, strict=True)]
    defined = sorted(x for x in found if x is not None)  # sorted: the resamples must not depend on the groups' order
    if not defined:
        return {"value": None, "low": None, "high": None, "groups": 0}
    mean = bootstrap_interval(defined, bounds=(-1.0, 1.0))
    return {"value": mean.value, "low": mean.low, "high": mean.high, "groups": mean.n}


def rank_correlation(a: Sequence[float], b: Sequence[float]) -> float | None:
    """Spearman's rho of two lists of equal length, ties at their average rank; None where one of them is constant."""
    x, y = (stats.rankdata(values) - (len(values) + 1) / 2 for values in (a, b))
    scale = math.sqrt(x @ x * (y @ y))
    return float(np.clip(x @ y / scale, -1, 1)) if scale else None


def gradient(policy: Policy, groups: Sequence[Group], advantage: Tensor, config: Train) -> Tensor:
    """dL/dtheta [n], on the CPU, of the surrogate for `advantage` [P, G] over all tokens of the groups.

    All trainable parameters, flattened in the order of `policy.trainable()`. No .grad is touched.
    """
    tokens = sum(len(episode) for group in groups for episode in group.episodes)
    total = [torch.zeros_like(p) for p in policy.trainable()]
    for batch in batches(groups, advantage, config.micro_batch, policy, all_rows=False):
        logp = token_logp(policy, batch, config.temperature)
        loss = policy_loss(logp, batch.old_logp, batch.advantages, tokens=tokens, clip=config.clip).loss
        for sum_, part in zip(total, torch.autograd.grad(loss, policy.trainable()), strict=True):
            sum_ += part
    return torch.cat([part.flatten().cpu() for part in total])


def cosine(a: Tensor | None, b: Tensor | None) -> float | None:
    """Cosine of two vectors [n], sums in float64; None where one is zero or missing."""
    if a is None or b is None:
        return None
    a, b = a.double(), b.double()
    scale = (a.norm() * b.norm()).item()
    return max(-1.0, min(1.0, torch.dot(a, b).item() / scale)) if scale else None


def _norm(name: str, step: int, vector: Tensor | None) -> float | None:
    if vector is None:
        return None
    norm = vector.double().norm().item()
    if not math.isfinite(norm):
        raise RunError(f"step {step}: the gradient of {name} has length {norm}: lower train.learning_rate")
    return norm
