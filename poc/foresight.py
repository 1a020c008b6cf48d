"""What a run will take on this machine: its Work and bytes, from configuration and policy (poc.cost, poc.memory).

On a CPU freed memory is not given back at once: glibc keeps pieces below 32 MiB, and what one stage kept seldom fits
the next one's pieces. So the stages' needs add up there, while on a card torch's allocator reuses what it reserved.

Not here: how a run goes (poc.session), the files (poc.runfolder), what `poc plan` prints (poc.plan).
"""

import time
from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass, replace
from statistics import fmean

from poc import budget, calibrate, cost, guard, memory, peak
from poc.budget import Fit
from poc.config import NEED_LABELS, RunConfig
from poc.cost import Prediction, Sampling, Speed, View, Work
from poc.memory import Shape
from poc.models import Policy
from poc.pilot import Staged
from poc.records import Example

TRUST = 1.5  # times faster or slower: on a busy machine single calls may be ten times slower than most
ENTRY, LETTERS, STEP = 170, 4, 1500  # bytes on disk: of a completion's figures, of a token, of a step


def work_of(
    config: RunConfig, policy: Policy, rows: dict[str, int], prompts: Sequence[int], lengths: Sequence[int],
    views: Sequence[View], processes: int = 1,
) -> Work:  # fmt: skip
    """The part of one of `processes` in a whole run; `prompts`, `lengths`: tokens of what is asked and answered."""
    options, share = config.train, lambda count: -(-count // processes)
    return Work(
        steps=options.steps, prompts_per_step=share(options.prompts_per_step), group_size=options.group_size,
        prompts=tuple(prompts), lengths=tuple(lengths),
        views=tuple(replace(view, prompts=view.prompts[: share(len(view.prompts))]) for view in views),
        samples=config.evaluate.samples, evaluations=1 + -(-options.steps // config.evaluate.every),
        saves=len(_saved(config)), rows=rows, reuse=options.rollout_reuse, epochs=options.inner_epochs,
        kl=options.kl > 0, shares_prefix=policy.shares_prefix, packs=policy.packs, attention=policy.attention_cost,
    )  # fmt: skip


def _saved(config: RunConfig) -> list[int]:
    """The steps that get a checkpoint."""
    steps, every = config.train.steps, (config.evaluate.every, config.train.checkpoint_every)
    return sorted({0, steps, *range(0, steps, every[0]), *range(0, steps, every[1])})


def views_of(views: Sequence) -> list[View]:
    """Of poc.evaluate's views."""
    return [View(tuple(len(v.encode(e)) for e in v.examples), v.cluster is not None) for v in views]


def sizes_of(work: Work, recompute: bool) -> calibrate.Sizes:
    """As large as the run's own calls; its evaluations count where `work` has some."""
    largest = max(cost.update_of(work), key=lambda one: one.tokens)
    rolled_out = work.prompts_per_step * work.reuse * work.group_size
    measured = max((len(view.prompts) for view in work.views), default=0) * work.samples
    return calibrate.Sizes(
        rows=max(min(work.rows["rollout"], rolled_out), min(work.rows["evaluate"], measured)),
        prompt=max(1, round(fmean(work.prompts))), answer=max(1, round(fmean(work.lengths))),
        micro_batch=min(work.rows["update"], work.prompts_per_step * work.group_size), together=largest.together,
        recompute=recompute,
    )  # fmt: skip


def extra_bytes(shape: Shape, work: Work, config: RunConfig, recompute: bool) -> dict[str, int]:
    """What the stages take beside the loaded model, "kept" what stays between them."""
    measured = [some for view in work.views for some in cost.measured_of(work, view)[:2]]
    learned = [
        memory.activation_bytes(shape, one.rows, one.length, one.together > 1, recompute)
        for one in cost.update_of(work)
    ]
    return {
        "kept": memory.optimizer_bytes(shape, config.train),
        "rollout": _sampled(shape, cost.rollout_of(work)),
        "update": max(learned),
        "evaluate": max((_sampled(shape, some) for some in measured), default=0),
    }


def _sampled(shape: Shape, found: Sampling) -> int:
    """The layer whose cache grows is there twice for a moment."""
    growing = memory.cache_bytes(shape, *found.widest) // shape.layers
    return max(memory.prefill_bytes(shape, 1, found.prefill), memory.sampling_bytes(shape, *found.widest) + growing)


def predicted(
    policy: Policy, config: RunConfig, work: Work, speed: Speed, recompute: bool, evaluation: float | None = None
) -> Prediction:  # fmt: skip
    """Seconds and bytes of all of `work`; what the process holds now is taken for what it holds throughout."""
    held, extra = peak.held(), extra_bytes(memory.shape_of(policy), work, config, recompute)
    stages = [extra[name] for name in ("rollout", "update", "evaluate")]
    most = max(stages) if policy.device.type == "cuda" else max(stages[0], stages[2]) + stages[1]
    return replace(cost.predict(work, speed, evaluation), held=held, extra=extra, peak=held + extra["kept"] + most)


def disk_bytes(policy: Policy, config: RunConfig, work: Work) -> int:
    """Of the run's folder: what checkpoints are kept, and the logs, about so."""
    options, adapter = config.train, sum(p.numel() for p in policy.trainable())
    moments = (2 if options.optimizer == "adamw8bit" else 8) * adapter
    saved, late = _saved(config), (options.steps - i * config.evaluate.every for i in range(guard.WINDOW))
    kept = min(len(saved), 1 + len({0, *saved[-2:], *late} & set(saved)))  # and the best, which may be any other
    questions, completion = sum(len(view.prompts) for view in work.views), ENTRY + LETTERS * fmean(work.lengths)
    evaluations = work.evaluations * questions * (1 + work.samples) * completion
    return round(kept * (4 * adapter + moments) + evaluations + options.steps * (STEP + 3 * completion))


def _seen(completion: dict, config: RunConfig) -> Hashable:
    """What a completion's reward depends on, as far as an evaluation tells; its text where that may be all of it."""
    if set(config.reward) == {"verifiable"}:
        return completion["status"] == "correct"
    ruled = set(config.reward) <= {*NEED_LABELS, "format"}
    return (completion["status"], completion["formatted"]) if ruled else completion["text"]


@dataclass(frozen=True, slots=True)
class Start:
    """What the measurement of a run's start is: questions, their prompts' tokens, and the evaluation of each view."""

    examples: Sequence[Sequence[Example]]
    views: Sequence[View]
    evaluations: Sequence[dict]
    saving: float  # seconds of the first checkpoint
    share: float | None = None  # of the completions that are trained on, where that is known

    def lengths(self) -> list[int]:
        """Tokens of the drawn completions of the hold-out and of the guard's questions."""
        chosen = [found for view, found in zip(self.views, self.evaluations, strict=True) if view.guarded]
        rows = [row for found in (self.evaluations[0], *chosen) for row in found["prompts"]]
        return [completion["length"] for row in rows for completion in row["sampled"]]

    def seconds(self, score: float) -> float:
        """Of an evaluation, `score` for each completion; what the first grading takes to start does not count."""
        graded = sum(len(found["prompts"]) * (1 + found["samples"]) for found in self.evaluations)
        return score * graded + sum(found["timing"]["sampling"] + found["timing"]["rest"] for found in self.evaluations)

    def trained(self, config: RunConfig) -> float:
        """Share of groups that are expected to differ in what the rewards see; equal ones teach nothing."""
        if self.share is not None:
            return self.share
        if "random" in config.reward or config.train.kl:
            return 1.0
        rows, size = self.evaluations[0]["prompts"], config.train.group_size
        alike = [len({_seen(completion, config) for completion in row["sampled"]}) == 1 for row in rows]
        return 1.0 - fmean(alike) * cost.all_alike(self.evaluations[0]["samples"], size)

    def grading(self) -> float:
        """Seconds that grading takes a completion."""
        pairs = zip(self.examples[0], self.evaluations[0]["prompts"], strict=True)
        found = [(example, completion["text"]) for example, row in pairs for completion in row["sampled"]]
        return calibrate.grading(found[: calibrate.GRADED])


def foresee(
    policy: Policy, config: RunConfig, rows: dict[str, int], recompute: bool, prompts: Sequence[int], start: Start,
    processes: int = 1,
) -> dict | None:  # fmt: skip
    """What is left of a run whose start was measured, as JSON; None where memory runs out."""
    began = time.perf_counter()
    work = work_of(config, policy, rows, prompts, start.lengths(), start.views, processes)
    work = replace(work, trained=start.trained(config))
    try:
        speed = calibrate.measure(policy, sizes_of(replace(work, views=()), recompute))
    except Exception as error:
        if not memory.is_out_of_memory(error):
            raise
        return None
    speed = replace(_trusted(speed, work, start), score=start.grading(), save=start.saving)
    left = replace(work, evaluations=work.evaluations - 1, saves=work.saves - 1)
    found = predicted(policy, config, left, speed, recompute, start.seconds(speed.score))
    return record(found, work, speed, recompute) | {"reckoned_in": time.perf_counter() - began}


def _trusted(speed: Speed, work: Work, start: Start) -> Speed:
    """What was timed in a second, unless the start's measurement, which took longer, says quite another thing."""
    calls = [some for view in work.views for some in cost.measured_of(work, view)[:2]]
    expected = sum(cost.sampling_seconds(some, speed) for some in calls)
    ratio = sum(found["timing"]["sampling"] for found in start.evaluations) / max(expected, 1e-9)
    return speed if 1 / TRUST < ratio < TRUST else speed.sampling_at(ratio)


@dataclass(frozen=True, slots=True)
class Foreseen:
    """What a run that has not begun would take; `disk` in bytes."""

    fit: Fit
    prediction: Prediction
    disk: int


def before(
    staged: Staged, policy: Policy, lengths: Sequence[int], score: float, measured: dict[calibrate.Sizes, Speed]
) -> Foreseen:  # fmt: skip
    """Of a staged run; without `lengths` for the longest completions. `score`: seconds to grade one; `measured`: what
    is known of the policy's speed."""
    config, views = staged.job.config, views_of(staged.views)
    prompts = [len(staged.encode(example)) for example in staged.examples]
    longest = max([*prompts, *(tokens for view in views for tokens in view.prompts)])
    fit = budget.fit(policy, config, longest)
    work = work_of(config, policy, fit.rows, prompts, lengths or [config.train.max_new_tokens], views)
    sizes = sizes_of(work, fit.recompute)
    if sizes not in measured:
        questions = max(len(view.prompts) for view in views)
        summing = calibrate.summing(questions, work.samples)
        measured[sizes] = replace(calibrate.measure(policy, sizes), score=score, question=summing)
    found = predicted(policy, config, work, measured[sizes], fit.recompute)
    return Foreseen(fit, found, disk_bytes(policy, config, work))


def record(found: Prediction, work: Work, speed: Speed, recompute: bool) -> dict:
    """A prediction as JSON."""
    lengths = {"mean": found.tokens, "longest": max(work.lengths), "prompt": sum(work.prompts) / len(work.prompts)}
    return {
        "seconds": found.seconds, "peak_bytes": found.peak, "held_bytes": found.held, "extra_bytes": found.extra,
        "lengths": lengths, "rows": work.rows, "recompute": recompute, "speed": asdict(speed),
    }  # fmt: skip
