"""The loop: one call per stage, in order.

    examples -> rollout -> meanings -> rewards -> advantages -> policy update -> record

and every few steps an evaluation and a checkpoint. Every random draw is seeded by (seed, purpose, step), never by what
was drawn before: a step depends on the weights and its number alone, and, where there is a switch, on the entropies of
the steps before it. It does not stop what collapses and knows nothing of reports.
"""

import hashlib
import time
from collections.abc import Callable, Sequence
from random import Random
from statistics import fmean

import torch
from torch import Tensor

from poc import rewards
from poc.config import RunConfig
from poc.display import Watch
from poc.evaluate import View, evaluate
from poc.models import Policy
from poc.objective import advantages
from poc.records import Example, Group, StepRecord
from poc.rewards import hybrid, semantic
from poc.rewards.meanings import Clustering, with_meanings
from poc.rollout import rollout
from poc.runfolder import RunFolder
from poc.update import UpdateRecord, optimise


def train(
    config: RunConfig, policy: Policy, examples: Sequence[Example], folder: RunFolder,
    *, encode: Callable[[Example], list[int]], cluster: Clustering, views: Sequence[View],
    interrupted: Callable[[], bool], watch: Watch, observe: Callable[[int, Sequence[Group]], None] | None = None,
) -> tuple[str, str | None]:  # fmt: skip
    """Train `policy` on `examples`, evaluate on `views`, write `folder`; ("done" or "interrupted", why it ended early).

    `encode` gives a training prompt's tokens; `cluster` says which answers mean the same; `interrupted` is asked after
    each step; `watch` shows what happens. The evaluation of the start model is not made here. `observe(step, groups)`
    may look at the weights that a step's groups were drawn from; it must leave them, the gradients and torch's global
    random state as they are.
    """
    options, switch = config.train, config.switch
    functions = rewards.select(config)
    optimizer = torch.optim.AdamW(policy.trainable(), lr=options.learning_rate, weight_decay=options.weight_decay)
    entropies: list[float] = []

    for step in range(1, options.steps + 1):
        started = time.perf_counter()
        switched = hybrid.has_switched(switch, entropies)
        pool = [e for e in examples if e.answer is not None] if switched else examples
        prompts = prompts_of_step(pool, options.prompts_per_step, options.seed, step)
        drawn = rollout(
            policy, prompts, [encode(e) for e in prompts], group_size=options.group_size,
            max_new_tokens=options.max_new_tokens, temperature=options.temperature,
            seed=derived_seed(options.seed, "rollout", step), max_rows=options.sample_rows,
        )  # fmt: skip
        sampled = time.perf_counter()
        groups = [with_meanings(group, cluster) for group in drawn]
        weights = hybrid.weights_at(step, options.steps, config.reward, config.schedule, switched if switch else None)
        routed = config.label_fraction is not None and (switch is None or switched)
        parts, volume = reward_tables(functions, weights, groups, config, routed)
        advantage = advantages(parts, volume)
        scored = time.perf_counter()
        if observe:
            observe(step, groups)
        observed = time.perf_counter()
        update = optimise(policy, optimizer, groups, advantage, options)
        timing = {"rollout": sampled - started, "reward": scored - sampled, "update": time.perf_counter() - observed}
        record = step_record(step, groups, parts, volume, weights, advantage, config, routed, update, timing)
        folder.log_step(record, groups, sum(volume[name] * parts[name] for name in parts))
        watch.step(record)
        entropies.append(record.entropy)

        stop = interrupted()
        ended = switch is not None and switch.then == "stop" and hybrid.has_switched(switch, entropies)
        due = step % config.evaluate.every == 0 or step == options.steps or ended
        if stop or due:
            folder.save_checkpoint(step, policy)
        if stop:
            return "interrupted", None
        for view in views if due else ():
            watch.evaluating()
            evaluation = evaluate(policy, view.examples, config, step=step, encode=view.encode)
            folder.log_evaluation(evaluation, view.name)
            watch.evaluated(evaluation, view.name)
        if ended:
            return "done", f"switch: stopped after step {step}, policy entropy {record.entropy:.3f} nats per token"
    return "done", None


def derived_seed(seed: int, purpose: str, step: int) -> int:
    """A 62-bit seed for one purpose at one step: streams never overlap and depend on nothing else."""
    return int.from_bytes(hashlib.sha256(f"{purpose}/{seed}/{step}".encode()).digest()[:8], "big") >> 2


def prompts_of_step(examples: Sequence[Example], count: int, seed: int, step: int) -> list[Example]:
    """The prompts of one step: epoch after epoch in a new order, every example once an epoch."""
    first = (step - 1) * count
    return [_shuffled(examples, seed, i // len(examples))[i % len(examples)] for i in range(first, first + count)]


def _shuffled(examples: Sequence[Example], seed: int, epoch: int) -> Sequence[Example]:
    return Random(f"order/{seed}/{epoch}").sample(examples, len(examples))


def reward_tables(
    functions: dict[str, rewards.Reward], weights: dict[str, float], groups: Sequence[Group], config: RunConfig,
    routed: bool = False,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:  # fmt: skip
    """Raw rewards [P, G] and weights [P, 1] of each part, in float64; both are 0 where a part does not speak.

    `routed`: labelled prompts are left to the parts that need labels.
    """
    limits = semantic.Limits(config.semantic.low, config.semantic.high, config.semantic.unit)
    parts, volume = {}, {}
    for name, function in functions.items():
        spoken = [hybrid.speaks(name, group, limits, routed) for group in groups]
        rows = [
            rewards.apply(name, function, group) if speaks else [0.0] * len(group.episodes)
            for group, speaks in zip(groups, spoken, strict=True)
        ]
        parts[name] = torch.tensor(rows, dtype=torch.float64)
        volume[name] = weights[name] * torch.tensor(spoken, dtype=torch.float64)[:, None]
    return parts, volume


def step_record(step: int, groups: Sequence[Group], parts: dict[str, Tensor], volume: dict[str, Tensor],
                weights: dict[str, float], advantage: Tensor, config: RunConfig, routed: bool, update: UpdateRecord,
                timing: dict[str, float]) -> StepRecord:  # fmt: skip
    """Everything that is logged of one step; per-token means weigh every sampled token alike."""
    episodes = [episode for group in groups for episode in group.episodes]
    verdicts = [episode.verdict.correct for episode in episodes if episode.verdict is not None]
    judged = [g for g in groups if weights.get("semantic_entropy") and hybrid.asked("semantic_entropy", g, routed)]
    heard = {name: parts[name][volume[name][:, 0] != 0] for name in parts}
    limits = semantic.Limits(config.semantic.low, config.semantic.high, config.semantic.unit)
    return StepRecord(
        step=step,
        reward=sum((volume[name] * parts[name]).mean().item() for name in parts),
        rewards={name: part.mean().item() if len(part) else None for name, part in heard.items()},
        reward_std={name: part.std(-1).mean().item() if len(part) else None for name, part in heard.items()},
        weights=weights,
        zero_variance=(advantage == 0).all(-1).double().mean().item(),
        entropy=fmean(x for e in episodes for x in e.entropy),
        logp=fmean(x for e in episodes for x in e.logp),
        self_certainty=fmean(x for e in episodes for x in e.self_certainty),
        length=fmean(map(len, episodes)),
        truncated=fmean(not e.finished for e in episodes),
        accuracy=fmean(verdicts) if verdicts else None,
        labelled=fmean(group.example.answer is not None for group in groups),
        agreement=fmean(map(semantic.agreement, groups)),
        semantic_entropy=fmean(semantic.entropy(group.meanings) for group in groups),
        dropped=fmean(not semantic.kept(group, limits) for group in judged) if judged else None,
        loss=update.loss,
        grad_norm=update.grad_norm,
        clip_fraction=update.clip_fraction,
        kl=update.kl,
        learning_rate=config.train.learning_rate,
        tokens=sum(map(len, episodes)),
        timing=timing,
    )
