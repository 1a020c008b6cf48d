"""`poc improve`: the self-improvement loop of the solver-verifier paper (arXiv 2507.00075), round by round.

    questions -> N candidates each -> the model's own scores -> best of N -> LoRA fine-tuning on the choices -> measure

A round is a step of everything that surrounds it (poc.session): evaluation, guard, checkpoint, exact resume. The best
of N is the candidate with the least uncertainty a token among those that the model itself lets pass (poc.gap.measure);
questions where none passes are left out of the lesson. Fine-tuning is maximum likelihood, sum of -logp over the tokens
of `improve.batch` answers, once through the choices; no reward, ratio or label takes part. Answers from outside
(poc.gap.external) are learned in the rounds that poc.gap.cross gives them, beside the choices.
"""

import time
from collections.abc import Callable, Sequence
from random import Random
from statistics import fmean

import torch

from poc import guard
from poc.config import RunConfig
from poc.display import Watch
from poc.evaluate import View
from poc.gap import cross, external, selfscore
from poc.gap.measure import chosen, uncertainty
from poc.models import Policy
from poc.order import derived_seed
from poc.parallel import the_world
from poc.records import Example, Group, NonFinite
from poc.rewards.meanings import Clustering, with_meanings
from poc.runfolder import RunFolder
from poc.session import Ending, Measure, Session
from poc.trainer import Scores, advanced, longest_prompt, step_record
from poc.update import UpdateRecord, check_finite, likelihood_share, new_optimizer


def improve(
    config: RunConfig, policy: Policy, examples: Sequence[Example], folder: RunFolder,
    *, encode: Callable[[Example], list[int]], cluster: Clustering, views: Sequence[View], measure: Measure,
    interrupted: Callable[[], bool], watch: Watch, observe: Callable | None = None,
) -> Ending:  # fmt: skip
    """`config.train.steps` rounds; what the arguments are: poc.trainer.train. Raises RunError, and InputError for
    external answers that do not fit the training questions."""
    options, session = config.train, Session(config, policy, folder, views, measure, watch)
    session.share = 1 / options.group_size
    score = selfscore.scorer(policy, selfscore.decide(config.gap.verifier, policy))
    given = outside(config, policy, examples, encode)
    optimizer = new_optimizer(policy, options)
    state = session.begin(optimizer, longest_prompt(examples, encode, views), [len(encode(e)) for e in examples])

    with session.last_good(lambda: (state, optimizer)):
        while True:
            if session.is_due(state):
                state = session.look(state)
            if session.is_over(state) or interrupted():
                break
            step, started = state.step + 1, time.perf_counter()
            groups, state = session.roll_out(state, step, examples, encode)
            groups = the_world().map("meanings", lambda group: with_meanings(group, cluster), groups)
            sampled = time.perf_counter()
            updates, skipped, scores = [], None, None
            try:
                check_finite(groups)
                scores = score(groups)
                scored = time.perf_counter()
                for batch in batches(lesson(groups, scores, config) + list(given[step - 1]), step, config):
                    ones = torch.ones(len(batch), 1)
                    update, state = session.update(state, step, optimizer, batch, ones, likelihood_share)
                    updates.append(update)
            except NonFinite as found:
                skipped, scored = session.skip(state, step, found), time.perf_counter()
            timing = {"rollout": sampled - started, "reward": scored - sampled, "update": time.perf_counter() - scored}
            record = step_record(
                step, groups, unpaid(groups), config, together(updates), skipped, state.rows["update"], timing
            )
            folder.log_step(record, groups, scores and torch.tensor(scores, dtype=torch.float64))
            watch.step(record)

            state = session.judge(advanced(state, record, ()), *guard.after_step(state.memory, record, config.guard))
            if step % options.checkpoint_every == 0 or session.is_due(state):
                session.save(state, optimizer)
        if not session.is_over(state):
            session.save(state, optimizer)
    return session.ending(state)


def outside(config: RunConfig, policy: Policy, examples: Sequence[Example], encode) -> list[list[Group]]:
    """The external answers of each round."""
    told, rounds = config.improve.external, config.train.steps
    if told is None:
        return [[]] * rounds
    found = external.answers(told, policy, examples, encode, config)
    return [found[part] for part in cross.portions(len(found), told.when, rounds)]


def lesson(groups: Sequence[Group], scores: Sequence[Sequence[float]], config: RunConfig) -> list[Group]:
    """The model's choice for each question where one of its candidates passes."""
    passed = [i for i, some in enumerate(scores) if max(some) >= config.gap.threshold]
    return chosen([groups[i] for i in passed], [scores[i] for i in passed], config.gap.threshold)


def batches(taught: list[Group], step: int, config: RunConfig) -> list[list[Group]]:
    """In an order of the round's own."""
    order = Random(derived_seed(config.train.seed, "lesson", step)).sample(taught, len(taught))
    return [order[i : i + config.improve.batch] for i in range(0, len(order), config.improve.batch)]


def together(updates: Sequence[UpdateRecord]) -> UpdateRecord | None:
    """A round's updates as one: mean loss (nats a token) and gradient norm."""
    if not updates:
        return None
    return UpdateRecord(fmean(u.loss for u in updates), fmean(u.grad_norm for u in updates), 0.0, 0.0)


def unpaid(groups: Sequence[Group]) -> Scores:
    """No reward is paid here; the record holds minus the candidates' mean uncertainty in its place."""
    found = torch.tensor([[-uncertainty(e) for e in group.episodes] for group in groups], dtype=torch.float64)
    return Scores({"likelihood": found}, {"likelihood": torch.ones(len(groups), 1)}, {"likelihood": 1.0}, False, found)
