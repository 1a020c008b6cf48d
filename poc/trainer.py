"""The loop: one call per stage, in order.

    examples -> rollout -> meanings -> rewards -> advantages -> policy update -> record -> guard -> checkpoint

and every few steps an evaluation. A step is one optimizer step. A rollout serves `rollout_reuse` steps, each with its
own share of the prompts, `inner_epochs` times over. Every random draw is seeded by (seed, purpose, number), never by
what was drawn before: what a step does depends on the weights, the optimizer and poc.checkpoint.State alone, and that
is what a checkpoint holds. Nothing that is not finite reaches the weights. It knows nothing of reports.
"""

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import fmean
from typing import NamedTuple

import torch
from torch import Tensor

from poc import guard, rewards, signals
from poc.checkpoint import State
from poc.config import RunConfig
from poc.display import Watch
from poc.evaluate import View
from poc.models import Policy
from poc.objective import advantages
from poc.order import cycle_length, place_of, share_of
from poc.parallel import the_world
from poc.records import Example, Group, NonFinite, StepRecord
from poc.rewards import hybrid, semantic
from poc.rewards.meanings import Clustering, with_meanings
from poc.runfolder import RunFolder
from poc.session import Ending, Measure, Session
from poc.update import UpdateRecord, check_finite, new_optimizer


def train(
    config: RunConfig, policy: Policy, examples: Sequence[Example], folder: RunFolder,
    *, encode: Callable[[Example], list[int]], cluster: Clustering, views: Sequence[View], measure: Measure,
    interrupted: Callable[[], bool], watch: Watch, observe: Callable[[int, Sequence[Group]], None] | None = None,
) -> Ending:  # fmt: skip
    """Train `policy` on `examples`, evaluate on `views`, write `folder`; go on from its last checkpoint if it has one.

    `encode` gives a training prompt's tokens; `cluster` says which answers mean the same; `measure` (poc.session)
    evaluates the policy as it is; `interrupted` is asked after each step and evaluation; `watch` shows what happens.
    `observe(step, groups)` may look at the weights that a step's groups were drawn from; it must leave them, the
    gradients and torch's global random state as they are. Raises RunError for a run that cannot go on: the weights of
    the last step that was good are saved first.
    """
    options, session = config.train, Session(config, policy, folder, views, measure, watch)
    functions = rewards.select(config)
    optimizer = new_optimizer(policy, options)
    state = session.begin(optimizer, longest_prompt(examples, encode, views), [len(encode(e)) for e in examples])

    with session.last_good(lambda: (state, optimizer)):
        while True:
            if session.is_due(state):
                state = session.look(state)
            if session.is_over(state) or interrupted():
                break
            step, place = state.step + 1, place_of(state.step + 1, config)
            switched = hybrid.has_switched(config.switch, state.entropies[: state.step - place])
            started = time.perf_counter()
            if place == 0:
                drawn, state = session.roll_out(state, step, pool(examples, switched), encode)
                drawn = the_world().map("meanings", lambda group: with_meanings(group, cluster), drawn)
            else:
                drawn = state.pending
            groups = share_of(drawn, place, config)
            sampled = time.perf_counter()
            if observe:
                observe(step, groups)
            observed = time.perf_counter()
            scores, update, skipped = no_scores(groups), None, None
            try:
                check_finite(groups)
                scores = score(step, groups, functions, config, switched)
                scored = time.perf_counter()
                update, state = session.update(state, step, optimizer, groups, scores.advantage)
            except NonFinite as found:
                skipped, scored = session.skip(state, step, found), time.perf_counter()
            timing = {"rollout": sampled - started, "reward": scored - observed, "update": time.perf_counter() - scored}
            record = step_record(step, groups, scores, config, update, skipped, state.rows["update"], timing)
            folder.log_step(record, groups, scores.totals)
            watch.step(record)

            state = advanced(state, record, drawn if place + 1 < cycle_length(config) else ())
            state = session.judge(state, *guard.after_step(state.memory, record, config.guard))
            if step % options.checkpoint_every == 0 or session.is_due(state):
                session.save(state, optimizer)
        if not session.is_over(state):
            session.save(state, optimizer)
    return session.ending(state)


def longest_prompt(examples: Sequence[Example], encode: Callable[[Example], list[int]], views: Sequence[View]) -> int:
    """Tokens of the longest prompt that is trained on or measured."""
    asked = [(encode, examples), *((view.encode, view.examples) for view in views)]
    return max(len(tokens(example)) for tokens, some in asked for example in some)


class Scores(NamedTuple):
    """What the rewards said of a step's groups; see `reward_tables`."""

    parts: dict[str, Tensor]
    volume: dict[str, Tensor]
    weights: dict[str, float]
    routed: bool
    advantage: Tensor  # [P, G]

    @property
    def totals(self) -> Tensor | None:
        """Weighted sum of the rewards of each completion [P, G]; None where nothing was scored."""
        return sum(self.volume[name] * self.parts[name] for name in self.parts) if self.parts else None


def score(
    step: int, groups: Sequence[Group], functions: dict[str, rewards.Reward], config: RunConfig, switched: bool
) -> Scores:
    """The rewards of one step and the advantages that follow. Raises RunError for a reward that fails."""
    weights = hybrid.weights_at(
        step, config.train.steps, config.reward, config.schedule, switched if config.switch else None
    )
    routed = config.label_fraction is not None and (config.switch is None or switched)
    parts, volume = reward_tables(functions, weights, groups, config, routed)
    return Scores(parts, volume, weights, routed, advantages(parts, volume))


def no_scores(groups: Sequence[Group]) -> Scores:
    """Of a step that comes to nothing."""
    return Scores({}, {}, {}, False, torch.zeros(len(groups), len(groups[0].episodes)))


def advanced(state: State, record: StepRecord, pending: Sequence[Group]) -> State:
    """After the step of `record`; `pending`: the rollout where later steps train on it."""
    return replace(
        state, step=record.step, entropies=(*state.entropies, record.entropy), pending=tuple(pending),
        skipped=state.skipped + (record.skipped is not None),
    )  # fmt: skip


def pool(examples: Sequence[Example], switched: bool) -> Sequence[Example]:
    """What prompts are taken from: after a switch to labels, the questions that have one."""
    return [e for e in examples if e.answer is not None] if switched else examples


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


def step_record(step: int, groups: Sequence[Group], scores: Scores, config: RunConfig, update: UpdateRecord | None,
                skipped: str | None, micro_batch: int, timing: dict[str, float]) -> StepRecord:  # fmt: skip
    """Everything that is logged of one step; per-token means weigh every sampled token alike.

    `update`: None for a step that was `skipped`.
    """
    parts, volume = scores.parts, scores.volume
    episodes = [episode for group in groups for episode in group.episodes]
    verdicts = [episode.verdict.correct for episode in episodes if episode.verdict is not None]
    asked = scores.weights.get("semantic_entropy")
    judged = [g for g in groups if asked and hybrid.asked("semantic_entropy", g, scores.routed)]
    heard = {name: parts[name][volume[name][:, 0] != 0] for name in parts}
    limits = semantic.Limits(config.semantic.low, config.semantic.high, config.semantic.unit)
    return StepRecord(
        step=step,
        reward=sum((volume[name] * parts[name]).mean().item() for name in parts) if parts else None,
        rewards={name: part.mean().item() if len(part) else None for name, part in heard.items()},
        reward_std={name: part.std(-1).mean().item() if len(part) else None for name, part in heard.items()},
        weights=scores.weights,
        zero_variance=(scores.advantage == 0).all(-1).double().mean().item() if parts else None,
        entropy=_finite_mean(x for e in episodes for x in e.entropy),
        logp=_finite_mean(x for e in episodes for x in e.logp),
        self_certainty=_finite_mean(x for e in episodes for x in e.self_certainty),
        length=fmean(map(len, episodes)),
        truncated=fmean(not e.finished for e in episodes),
        repetition=fmean(signals.repetition(e.token_ids) for e in episodes),
        foreign=signals.foreign([e.text for e in episodes], [group.example.text for group in groups]),
        accuracy=fmean(verdicts) if verdicts else None,
        labelled=fmean(group.example.answer is not None for group in groups),
        agreement=fmean(map(semantic.agreement, groups)),
        semantic_entropy=fmean(semantic.entropy(group.meanings) for group in groups),
        dropped=fmean(not semantic.kept(group, limits) for group in judged) if judged else None,
        loss=update and update.loss,
        grad_norm=update and update.grad_norm,
        clip_fraction=update and update.clip_fraction,
        kl=update and update.kl,
        learning_rate=config.train.learning_rate,
        tokens=sum(map(len, episodes)),
        skipped=skipped,
        micro_batch=micro_batch,
        timing=timing,
    )


def _finite_mean(values) -> float | None:
    mean = fmean(values)
    return mean if math.isfinite(mean) else None
