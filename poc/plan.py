"""`poc plan [CONFIG] [--probe]`: the arms of a run or pilot, what they would take, and what a probe finds.

Everything that a run checks before it trains is checked. What it takes is reckoned from a second's measurements of each
start model on this machine (poc.calibrate, poc.cost): for completions as long as they may be, or, with a probe, as long
as the start model's are. Nothing is trained, nothing is written.
"""

from collections.abc import Sequence
from statistics import fmean

from rich.table import Table

from poc import pilot, sources
from poc.config import RunConfig
from poc.display import GIB, console, duration
from poc.pilot import Data, Job, Questions
from poc.text import visible

COSTS = ("run", "time {}", "rollout", "update", "evaluate", "memory", "a pass", "sampled at once", "layers", "disk")


def show(jobs: list[Job], data: Questions, with_probe: bool) -> None:
    """Print the plan; with a probe, sample each start model, and warn. Models that are not here are loaded for that."""
    _print_jobs(jobs, data)
    here = [job for job in jobs if with_probe or _is_here(job.config)]
    for source in dict.fromkeys(job.config.model for job in jobs if job not in here):
        print(f"{visible(source)} is not on this machine: poc plan --probe downloads it and measures memory and time")
    found = []
    for source in dict.fromkeys(job.config.model for job in here):
        found += _foresee_model([job for job in here if job.config.model == source], data, with_probe)
    if found:
        _print_costs(found, "about" if with_probe else "at most")
    if not with_probe:
        print("poc plan --probe samples the start models and says where feedback without labels may not help")


def _is_here(config: RunConfig) -> bool:
    judge = config.semantic.judge
    return sources.is_here(config.model) and (judge in (None, "policy") or sources.is_here(judge))


def _print_jobs(jobs: list[Job], data: Questions) -> None:
    rows = [_row(job, data.of(job)) for job in jobs]
    _print_table(("run", "model", "reward", "steps", "completions", "tokens at most", "labels used"), rows)
    first = next(iter(data.values()))
    print(", ".join(f"{len(examples):,} {split}" for split, examples in first.items()) + " questions")
    for line in dict.fromkeys(line for notes in data.notes.values() for line in _left_out(notes)):
        print(visible(line))


def _left_out(notes: dict) -> list[str]:
    """What poc.tasks.load_with_notes left out, in words."""
    leaks, drop = notes.get("leaks", {}), notes.get("drop", {})
    found = [(notes.get("unusable", 0), f"rows cannot be used, the first: {notes.get('first_unusable')}")]
    found += [
        (leaks.get("left_out", 0), f"training questions copy a measured one and are left out: {leaks.get('examples')}")
    ]
    found += [(drop.get("left_out", 0), f"training questions are left out as {drop.get('file')} says")]
    return [f"{count} {text}" for count, text in found if count]


def _row(job: Job, questions: Data) -> tuple[str, ...]:
    config, options = job.config, job.config.train
    completions = options.steps * options.prompts_per_step * options.group_size
    labels = sum(e.answer is not None for e in pilot.training_questions(config, questions["train"]))
    reward = " + ".join(f"{weight:g} {name}" for name, weight in config.reward.items()) + _besides(config)
    counts = options.steps, completions, completions * options.max_new_tokens, labels if config.needs_labels else 0
    return visible(job.name), visible(config.model), reward, *(f"{n:,}" for n in counts)


def _besides(config) -> str:
    """What changes the mix over time, or the prompt, in a few words."""
    plans = [f"{name} to {plan.to:g} ({plan.shape})" for name, plan in config.schedule.items()]
    switch = [f"then {config.switch.then}"] if config.switch else []
    told = [f"motivation {config.motivation.condition}"] if config.motivation.condition != "none" else []
    return f" ({', '.join(found)})" if (found := plans + switch + told) else ""


def _foresee_model(jobs: list[Job], data: Questions, with_probe: bool) -> list:
    """Load one start model, measure it, and foresee each of its runs; (job, foresight) of each."""
    from poc import foresight
    from poc.models import load_policy

    config = jobs[0].config
    print(f"loading {visible(config.model)}", flush=True)
    policy = load_policy(
        config.model, quantization=config.quantization, lora_rank=config.lora.rank, lora_alpha=config.lora.alpha
    )
    staged = [pilot.stage(job, policy, data.of(job)) for job in jobs]
    found = _probe_model(jobs[0], policy, data) if with_probe else None
    lengths, score = (found.lengths, found.score) if found else ((), 0.0)
    measured: dict = {}  # arms that are alike are measured once
    return [(one.job, foresight.before(one, policy, lengths, score, measured)) for one in staged]


def _probe_model(job: Job, policy, data: Questions):
    """Print one model's probe."""
    from poc import probe

    config, (encode, facts) = job.config, pilot.prompt_encoder(job, policy)
    found = probe.probe(
        policy, data.of(job)["train"], config, encode=encode, cluster=pilot.clustering(config, policy),
        chat=facts["prompt_format"] == "chat",
    )  # fmt: skip
    title = f"{visible(config.model)}, {facts['prompt_format']} prompt, {found.prompts} training questions, groups of"
    print(f"{title} {found.group_size}, temperature {config.train.temperature:g}")
    _print_table(("measured before training", "value (95 % interval over questions)"), probe.lines(found))
    for warning in probe.warnings(found):
        print(f"! {warning}.")
    return found


def _print_costs(found: Sequence[tuple], how: str) -> None:
    """What each run takes, and all of them."""
    head = tuple(column.format(how) for column in COSTS)
    _print_table(head, [_costs(job, foreseen) for job, foreseen in found])
    total = duration(sum(foreseen.prediction.total for _, foreseen in found))
    most = max(foreseen.prediction.peak for _, foreseen in found) / GIB
    disk = sum(foreseen.disk for _, foreseen in found) / 2**20
    tokens = fmean(foreseen.prediction.tokens for _, foreseen in found)
    said = f"{how} {total}, {most:.2f} GiB of memory and {disk:,.0f} MiB of disk on this machine"
    left_out = "loading" if how == "about" else "loading and grading"
    print(f"in all: {said}, {left_out} left out, for completions of {tokens:.0f} tokens")


def _costs(job: Job, foreseen) -> tuple[str, ...]:
    seconds = [foreseen.prediction.total, *(foreseen.prediction.seconds[s] for s in ("rollout", "update", "evaluate"))]
    rows, recompute = foreseen.fit.rows, foreseen.fit.recompute
    options = job.config.train
    a_pass = min(rows["update"], options.prompts_per_step * options.group_size)
    at_once = min(rows["rollout"], options.prompts_per_step * options.rollout_reuse * options.group_size)
    return (
        visible(job.name), *map(duration, seconds), f"{foreseen.prediction.peak / GIB:.2f} GiB",
        f"{a_pass:,}", f"{at_once:,}", "computed again" if recompute else "kept", f"{foreseen.disk / 2**20:,.0f} MiB",
    )  # fmt: skip


def _print_table(head: tuple[str, ...], rows) -> None:
    """A table in a terminal, plain lines elsewhere."""
    if not console.is_terminal:
        for row in [head, *rows] if len(head) > 2 else rows:
            print(" · ".join(row) if len(head) > 2 else f"{row[0]}: {row[1]}")
        return
    table = Table(*head)
    for row in rows:
        table.add_row(*row)
    console.print(table, markup=False)
