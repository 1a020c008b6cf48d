"""The pilot: arms over seeds, one run folder each, on the same data and the same start models.

Everything that can be wrong in the input is checked before any weights load: configuration, model names, files, rows,
labels. Then each model is loaded once, and each arm starts from it with a fresh adapter. The measurement of a start
model is shared by its arms: a fresh adapter changes nothing, so its numbers are theirs. `poc train` is a pilot of one
arm.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from poc import runfolder, sources, tasks
from poc.config import Arm, PilotConfig, RunConfig
from poc.display import Watch
from poc.records import Example, InputError, Split

LEARNING_RATE = {True: 2e-4, False: 3e-5}  # is a lab model: those are so small that an adapter must move far


@dataclass(frozen=True, slots=True)
class Job:
    """One arm with one seed."""

    folder: Path
    name: str
    role: str | None
    config: RunConfig


Data = dict[Split, list[Example]]


def jobs_of(config: PilotConfig, out: Path) -> list[Job]:
    """All runs of a pilot, grouped by model so that one model at a time is in memory."""
    roles = list(config.models)
    return [
        _job(config, arm, seed, out)
        for arm in sorted(config.arms, key=lambda arm: roles.index(arm.model))
        for seed in config.seeds
    ]


def _job(config: PilotConfig, arm: Arm, seed: int, out: Path) -> Job:
    name = f"{arm.label}-seed{seed}"
    return Job(out / "arms" / name, name, arm.model, resolve(config.run_config(arm, seed)))


def resolve(config: RunConfig) -> RunConfig:
    """The configuration with every "None: it depends" decided."""
    lab = sources.first_part(config.model) in sources.LABS
    domain = tasks.own if config.data.own else tasks.DOMAINS[config.data.domain]
    train = {
        "learning_rate": config.train.learning_rate or LEARNING_RATE[lab],
        "max_new_tokens": config.train.max_new_tokens or domain.MAX_NEW_TOKENS,
    }
    instruction = domain.INSTRUCTION if config.prompt.instruction is None else config.prompt.instruction
    return config.model_copy(
        update={
            "train": config.train.model_copy(update=train),
            "prompt": config.prompt.model_copy(update={"instruction": instruction}),
        }
    )


def prepare(jobs: list[Job]) -> dict[int, Data]:
    """Check all that can be checked without weights; the data by seed. Raises InputError."""
    for source in {job.config.model: None for job in jobs}:
        sources.check_source(source)
    config = jobs[0].config
    data = {job.config.train.seed: None for job in jobs}
    data = {seed: tasks.load(config.data, seed) for seed in data}
    for job in jobs:
        _check_labels(job.config, data[job.config.train.seed])
    return data


def _check_labels(config: RunConfig, data: Data) -> None:
    unlabelled = sum(example.answer is None for example in data["train"])
    if config.reward.get("verifiable") and unlabelled:
        raise InputError(
            f"reward verifiable: {unlabelled} of {len(data['train'])} training questions have no answer in column "
            f"{config.data.answer!r}: label them, or leave this reward out (in a pilot: set your own arms)"
        )


def run(jobs: list[Job], data: dict[int, Data], watch: Watch, interrupted: Callable[[], bool]) -> str:
    """Run all jobs; "done", "interrupted" or "failed" (some arm did; the others ran)."""
    states = []
    for source in dict.fromkeys(job.config.model for job in jobs):
        states += _run_model([job for job in jobs if job.config.model == source], data, watch, interrupted)
        if states[-1] == "interrupted":
            break
    return next((state for state in ("interrupted", "failed") if state in states), "done")


def _run_model(jobs: list[Job], data: dict[int, Data], watch: Watch, interrupted) -> Iterator[str]:
    """Yield the state of each of one model's jobs."""
    from poc.models import load_policy

    config = jobs[0].config
    watch.say(f"loading {config.model}")
    policy = load_policy(
        config.model, quantization=config.quantization, lora_rank=config.lora.rank, lora_alpha=config.lora.alpha
    )
    start: dict[str, dict] = {}  # prompt format -> evaluation of the start model
    for job in jobs:
        yield _run_job(job, policy, data[job.config.train.seed], watch, interrupted, start)
        if interrupted():
            return


def _run_job(job: Job, policy, data: Data, watch: Watch, interrupted, start: dict) -> str:
    """One run from fresh adapter to outcome.json."""
    from poc.trainer import train

    encode, facts = prompt_encoder(job, policy)
    check_lengths(data, encode, policy, job.config)
    folder = runfolder.RunFolder(job.folder, job.config)
    folder.log_environment(**_facts(job, policy, data, facts))
    watch.start_run(job.name, job.config.train.steps)
    with _outcome(folder, job.name, watch) as state:
        policy.reset_adapter(job.config.train.seed)
        measured = _start_evaluation(start, facts["prompt_format"], policy, data, job.config, encode, watch)
        state["status"] = train(
            job.config, policy, data, folder, encode=encode, interrupted=interrupted, watch=watch, start=measured
        )
    return state["status"]


def _facts(job: Job, policy, data: Data, prompt: dict) -> dict:
    """What environment.json says of model, data and arm."""
    hashes = {split: tasks.fingerprint(examples) for split, examples in data.items()}
    return {
        "model": {"source": policy.source, "fingerprint": policy.fingerprint, **prompt},
        "data": hashes | {"counts": {split: len(examples) for split, examples in data.items()}},
        "arm": job.name.removesuffix(f"-seed{job.config.train.seed}"),
        "role": job.role,
        "seed": job.config.train.seed,
    }


@contextmanager
def _outcome(folder: runfolder.RunFolder, name: str, watch: Watch) -> Iterator[dict]:
    """Writes outcome.json whatever happens; a RunError ends this run only, anything else goes on up."""
    from poc.update import RunError

    began, state = time.perf_counter(), {"status": "failed", "reason": None}
    try:
        yield state
    except RunError as error:
        state["reason"] = str(error)
        watch.say(f"{name} failed: {error}")
    except BaseException as error:
        state |= {"status": "interrupted" if isinstance(error, KeyboardInterrupt) else "failed", "reason": repr(error)}
        raise
    finally:
        folder.log_outcome(state["status"], time.perf_counter() - began, state["reason"])


def _start_evaluation(known: dict[str, dict], form: str, policy, data: Data, config, encode, watch: Watch) -> dict:
    """The start model's evaluation, measured once per prompt format, at the cost of the first arm."""
    from poc.evaluate import evaluate

    if form in known:
        return known[form] | {"seconds": 0.0}
    watch.evaluating()
    known[form] = evaluate(policy, data["holdout"], config, step=0, encode=encode)
    watch.evaluated(known[form])
    return known[form]


def prompt_encoder(job: Job, policy) -> tuple[Callable[[Example], list[int]], dict]:
    """A function from an example to its prompt's tokens (each rendered once), and what the report says about it."""
    from poc.prompts import default_format, render

    prompt = job.config.prompt
    form = prompt.format if prompt.format != "auto" else default_format(policy.source, policy.tokenizer, job.role)
    cache: dict[str, list[int]] = {}

    def encode(example: Example) -> list[int]:
        if example.id not in cache:
            cache[example.id] = render(example.question, policy.tokenizer, form, prompt.instruction)
        return cache[example.id]

    return encode, {"prompt_format": form, "instruction": prompt.instruction if form != "bare" else ""}


def check_lengths(data: Data, encode, policy, config: RunConfig) -> None:
    """InputError when a prompt and its longest completion do not fit the model's context."""
    limit = getattr(policy.model.config, "max_position_embeddings", None)
    if limit is None:
        return
    longest = max((example for split in data.values() for example in split), key=lambda example: len(encode(example)))
    if len(encode(longest)) + config.train.max_new_tokens > limit:
        raise InputError(
            f"{longest.id} ({longest.text[:30]!r}...): a prompt of {len(encode(longest))} tokens and max_new_tokens = "
            f"{config.train.max_new_tokens} do not fit the {limit} tokens of {policy.source}: shorten one of them"
        )
