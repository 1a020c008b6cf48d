"""The loop: one call per stage, in order.

    examples -> rollout -> rewards -> advantages -> policy update -> record; every few steps an evaluation, a checkpoint

Every random draw is seeded by (seed, purpose, step), never by what was drawn before: a step depends on the weights and
its number alone. It does not stop what collapses and knows nothing of reports.
"""

import hashlib
import time
from collections.abc import Callable, Sequence
from random import Random
from statistics import fmean

import torch

from poc import rewards
from poc.config import RunConfig
from poc.display import Watch
from poc.evaluate import evaluate
from poc.models import Policy
from poc.objective import advantages
from poc.records import Example, Group, StepRecord
from poc.rollout import rollout
from poc.runfolder import RunFolder
from poc.update import UpdateRecord, optimise


def train(
    config: RunConfig, policy: Policy, data: dict[str, list[Example]], folder: RunFolder,
    *, encode: Callable[[Example], list[int]], interrupted: Callable[[], bool], watch: Watch, start: dict,
) -> str:  # fmt: skip
    """Train `policy` on data["train"], evaluate on data["holdout"], write `folder`; "done" or "interrupted".

    `encode` gives an example's prompt tokens; `interrupted` is asked after each step; `watch` shows what happens;
    `start` is the evaluation of the start model.
    """
    options = config.train
    functions = rewards.select(config.reward, config.length_norm)
    optimizer = torch.optim.AdamW(policy.trainable(), lr=options.learning_rate, weight_decay=options.weight_decay)
    folder.log_evaluation(start)

    for step in range(1, options.steps + 1):
        started = time.perf_counter()
        examples = prompts_of_step(data["train"], options.prompts_per_step, options.seed, step)
        groups = rollout(
            policy, examples, [encode(e) for e in examples], group_size=options.group_size,
            max_new_tokens=options.max_new_tokens, temperature=options.temperature,
            seed=derived_seed(options.seed, "rollout", step), max_rows=options.sample_rows,
        )  # fmt: skip
        sampled = time.perf_counter()
        parts = {name: reward_table(name, function, groups) for name, function in functions.items()}
        advantage = advantages(parts, config.reward)
        update = optimise(policy, optimizer, groups, advantage, options)
        timing = {"rollout": sampled - started, "update": time.perf_counter() - sampled}
        record = step_record(step, groups, parts, advantage, config, update, timing)
        folder.log_step(record, groups, parts)
        watch.step(record)

        stop = interrupted()
        if stop or step % config.evaluate.every == 0 or step == options.steps:
            folder.save_checkpoint(step, policy)
        if stop:
            return "interrupted"
        if step % config.evaluate.every == 0 or step == options.steps:
            watch.evaluating()
            evaluation = evaluate(policy, data["holdout"], config, step=step, encode=encode)
            folder.log_evaluation(evaluation)
            watch.evaluated(evaluation)
    return "done"


def derived_seed(seed: int, purpose: str, step: int) -> int:
    """A 62-bit seed for one purpose at one step: streams never overlap and depend on nothing else."""
    return int.from_bytes(hashlib.sha256(f"{purpose}/{seed}/{step}".encode()).digest()[:8], "big") >> 2


def prompts_of_step(examples: Sequence[Example], count: int, seed: int, step: int) -> list[Example]:
    """The prompts of one step: epoch after epoch in a new order, every example once an epoch."""
    first = (step - 1) * count
    return [_shuffled(examples, seed, i // len(examples))[i % len(examples)] for i in range(first, first + count)]


def _shuffled(examples: Sequence[Example], seed: int, epoch: int) -> Sequence[Example]:
    return Random(f"order/{seed}/{epoch}").sample(examples, len(examples))


def reward_table(name: str, reward: rewards.Reward, groups: Sequence[Group]) -> torch.Tensor:
    """Raw rewards [P, G] in float64."""
    return torch.tensor([rewards.apply(name, reward, group) for group in groups], dtype=torch.float64)


def step_record(step: int, groups: Sequence[Group], parts: dict[str, torch.Tensor], advantage: torch.Tensor,
                config: RunConfig, update: UpdateRecord, timing: dict[str, float]) -> StepRecord:  # fmt: skip
    """Everything that is logged of one step; per-token means weigh every sampled token alike."""
    episodes = [episode for group in groups for episode in group.episodes]
    verdicts = [episode.verdict.correct for episode in episodes if episode.verdict is not None]
    return StepRecord(
        step=step,
        reward=sum(config.reward[name] * part.mean().item() for name, part in parts.items()),
        rewards={name: part.mean().item() for name, part in parts.items()},
        reward_std={name: part.std(-1).mean().item() for name, part in parts.items()},
        zero_variance=(advantage == 0).all(-1).double().mean().item(),
        entropy=fmean(x for e in episodes for x in e.entropy),
        logp=fmean(x for e in episodes for x in e.logp),
        self_certainty=fmean(x for e in episodes for x in e.self_certainty),
        length=fmean(map(len, episodes)),
        truncated=fmean(not e.finished for e in episodes),
        accuracy=fmean(verdicts) if verdicts else None,
        loss=update.loss,
        grad_norm=update.grad_norm,
        clip_fraction=update.clip_fraction,
        kl=update.kl,
        learning_rate=config.train.learning_rate,
        tokens=sum(map(len, episodes)),
        timing=timing,
    )
