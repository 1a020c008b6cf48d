"""What a run will take on this machine: its Work and bytes, from configuration and policy (poc.cost, poc.memory).

On a CPU freed memory is not given back at once: glibc keeps pieces below 32 MiB, and what one stage kept seldom fits
the next one's pieces. So the stages' needs add up there, while on a card torch's allocator reuses what it reserved.

Not here: how a run goes (poc.session), the files (poc.runfolder), what `poc plan` prints (poc.plan).
"""

import time
from collections.abc import Sequence
from dataclasses import asdict, replace

from poc import calibrate, cost, memory, peak
from poc.config import RunConfig
from poc.cost import Prediction, Sampling, Speed, View, Work
from poc.memory import Shape
from poc.models import Policy

GIB = 2**30
CHANGED = 0.1  # a mean length that changed by more is told of


def work_of(
    config: RunConfig, policy: Policy, rows: dict[str, int], prompts: Sequence[int], lengths: Sequence[int],
    views: Sequence[View], processes: int = 1,
) -> Work:  # fmt: skip
    """The part of one of `processes` in a whole run; `prompts`, `lengths`: tokens of what is asked and answered."""
    options, share = config.train, lambda count: -(-count // processes)
    every, checkpoint = config.evaluate.every, options.checkpoint_every
    saves = {0, options.steps, *range(0, options.steps, every), *range(0, options.steps, checkpoint)}
    return Work(
        steps=options.steps, prompts_per_step=share(options.prompts_per_step), group_size=options.group_size,
        prompts=tuple(prompts), lengths=tuple(lengths),
        views=tuple(replace(view, prompts=view.prompts[: share(len(view.prompts))]) for view in views),
        samples=config.evaluate.samples, evaluations=1 + -(-options.steps // every), saves=len(saves), rows=rows,
        reuse=options.rollout_reuse, epochs=options.inner_epochs, kl=options.kl > 0,
        shares_prefix=policy.shares_prefix, packs=policy.packs, attention=policy.attention_cost,
    )  # fmt: skip


def sizes_of(work: Work, recompute: bool) -> calibrate.Sizes:
    """As large as the run's own calls."""
    largest = max(cost.update_of(work), key=lambda one: one.tokens)
    rows = [cost.rollout_of(work), *(some for view in work.views for some in cost.measured_of(work, view)[:2])]
    mean = lambda values: max(1, round(sum(values) / len(values)))  # noqa: E731
    return calibrate.Sizes(
        rows=max(some.widest[0] for some in rows), prompt=mean(work.prompts), answer=mean(work.lengths),
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
    return max(memory.prefill_bytes(shape, 1, found.prefill), memory.sampling_bytes(shape, *found.widest))


def predicted(policy: Policy, config: RunConfig, work: Work, speed: Speed, recompute: bool) -> Prediction:
    """Seconds and bytes of the whole run; what the process holds now is taken for what it holds throughout."""
    held, extra = peak.held(), extra_bytes(memory.shape_of(policy), work, config, recompute)
    stages = [extra[name] for name in ("rollout", "update", "evaluate")]
    most = max(stages) if policy.device.type == "cuda" else max(stages[0], stages[2]) + stages[1]
    return replace(cost.predict(work, speed), held=held, extra=extra, peak=held + extra["kept"] + most)


def foresee(
    policy: Policy, config: RunConfig, rows: dict[str, int], recompute: bool, prompts: Sequence[int],
    views: Sequence[View], evaluations: Sequence[dict], saving: float, processes: int = 1,
) -> dict | None:  # fmt: skip
    """What is left of a run whose start was measured, as JSON; None where memory runs out.

    `evaluations`: one of each view; the first and the guard's have the lengths that are predicted for. `saving`:
    seconds of the start's checkpoint.
    """
    began = time.perf_counter()
    lengths = [
        completion["length"]
        for view, found in zip(views, evaluations, strict=True)
        if view is views[0] or view.guarded
        for row in found["prompts"]
        for completion in row["sampled"]
    ]
    work = work_of(config, policy, rows, prompts, lengths, views, processes)
    try:
        speed = calibrate.measure(policy, sizes_of(work, recompute))
    except Exception as error:
        if not memory.is_out_of_memory(error):
            raise
        return None
    speed = cost.corrected(speed, work, [cost.Took(**found["timing"]) for found in evaluations])
    left = replace(work, evaluations=work.evaluations - 1, saves=work.saves - 1)
    found = predicted(policy, config, left, replace(speed, save=saving), recompute)
    return record(found, work, speed, recompute) | {"reckoned_in": time.perf_counter() - began}


def record(found: Prediction, work: Work, speed: Speed, recompute: bool) -> dict:
    """A prediction as JSON."""
    lengths = {"mean": found.tokens, "longest": max(work.lengths), "prompt": sum(work.prompts) / len(work.prompts)}
    return {
        "seconds": found.seconds, "peak_bytes": found.peak, "held_bytes": found.held, "extra_bytes": found.extra,
        "lengths": lengths, "rows": work.rows, "recompute": recompute, "speed": asdict(speed),
    }  # fmt: skip


def said(plan: dict) -> str:
    """ "will take about 1.3 min and 0.68 GiB, as long as completions have 18.2 tokens" """
    time_, memory_ = duration(plan["total"]), f"{plan['peak_bytes'] / GIB:.2f} GiB"
    return f"will take about {time_} and {memory_}, as long as completions have {plan['lengths']['mean']:.1f} tokens"


def ended(outcome: dict, steps: int) -> str:
    """ "1.4 min (predicted 1.3), peak 0.71 GiB (predicted 0.68), mean tokens 11.2 -> 7.0" """
    plan, length = outcome["predicted"], outcome["length"]
    taken, most = duration(outcome["seconds"]["total"]), f"peak {outcome['peak_memory_mib'] / 1024:.2f} GiB"
    early = f"after {outcome['steps']} of {steps} steps " if outcome["steps"] < steps else ""
    if not plan:
        return f"{early}{taken}, {most}"
    taken += f" (predicted {duration(plan['seconds'])}{' for all' if early else ''})"
    most += f" (predicted {plan['peak_memory_mib'] / 1024:.2f})"
    was = plan["length"]
    changed = f", mean tokens {was:.1f} -> {length:.1f}" if length and abs(length / was - 1) > CHANGED else ""
    return f"{early}{taken}, {most}{changed}"


def duration(seconds: float) -> str:
    return f"{seconds / 60:.1f} min" if seconds >= 60 else f"{seconds:.0f} s"
