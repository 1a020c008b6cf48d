"""`poc plan [CONFIG] [--probe]`: the arms of a run or pilot, how much they would sample, and what a probe finds.

Everything that a run checks before it loads weights is checked. Nothing is trained, nothing is written.
"""

from rich.table import Table

from poc import pilot
from poc.display import console
from poc.pilot import BESIDE, Data, Job, Questions
from poc.text import visible


def show(jobs: list[Job], data: Questions, with_probe: bool) -> None:
    """Print the plan; with a probe, load each start model, sample it, and warn."""
    _print_jobs(jobs, data)
    if not with_probe:
        return print("poc plan --probe samples the start models and says where feedback without labels may not help")
    sources = dict.fromkeys(job.config.model for job in jobs)
    total = sum(_probe_model([job for job in jobs if job.config.model == source], data) for source in sources)
    print(f"about {max(total, 1):.0f} minutes in all on this machine, reckoned from these probes")


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


def _probe_model(jobs: list[Job], data: Questions) -> float:
    """Print one model's probe; estimated minutes of its runs."""
    from poc import probe
    from poc.models import load_policy

    job, config = jobs[0], jobs[0].config
    print(f"loading {visible(config.model)}", flush=True)
    policy = load_policy(
        config.model, quantization=config.quantization, lora_rank=config.lora.rank, lora_alpha=config.lora.alpha
    )
    for other in jobs:
        pilot.stage(other, policy, data.of(other))
    encode, facts = pilot.prompt_encoder(job, policy)
    questions = data.of(job)
    found = probe.probe(
        policy, questions["train"], config, encode=encode, cluster=pilot.clustering(config, policy),
        chat=facts["prompt_format"] == "chat",
    )  # fmt: skip
    title = f"{visible(config.model)}, {facts['prompt_format']} prompt, {found.prompts} training questions, groups of"
    print(f"{title} {found.group_size}, temperature {config.train.temperature:g}")
    _print_table(("measured before training", "value (95 % interval over questions)"), probe.lines(found))
    for warning in probe.warnings(found):
        print(f"! {warning}.")
    return sum(probe.minutes(found, job.config, _measured(job, questions)) for job in jobs)


def _measured(job: Job, questions: Data) -> int:
    """Questions of one evaluation, those of other views included."""
    views = [name for name in questions if name == "holdout" or name.startswith(BESIDE)]
    twice = len(questions["holdout"]) if job.config.motivation.evaluate else 0
    return sum(len(questions[name]) for name in views) + twice


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
