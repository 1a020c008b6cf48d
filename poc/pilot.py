"""The pilot: arms over seeds, one run folder each, on the same data and the same start models.

Everything that can be wrong in the input is checked before any weights load: configuration, model names, files, rows,
labels. Then each model is loaded once, and each arm starts from it with a fresh adapter. The measurement of a start
model is shared by its arms: a fresh adapter changes nothing, so its numbers are theirs. `poc train` is a pilot of one
arm.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from poc import peak, rewards, runfolder, sharedfolder, sources, tasks, tracker
from poc.config import NEED_LABELS, Arm, PilotConfig, RunConfig
from poc.display import Watch, told
from poc.motivation import motivation
from poc.parallel import the_world
from poc.records import Example, InputError, RunError
from poc.resolve import resolve
from poc.rewards import hybrid, meanings
from poc.rewards.meanings import Clustering

BESIDE = ("level-", "domain-")  # hold-outs that are measured beside the run's own
CANARY = "canary"  # the guard's questions
MOTIVATED = "motivated"  # the hold-out asked with the reward's rules in the prompt
GAP = "gap"  # solver and verifier on the first questions of the hold-out


@dataclass(frozen=True, slots=True)
class Job:
    """One arm with one seed."""

    folder: Path
    name: str
    role: str | None
    config: RunConfig


Data = dict[str, list[Example]]  # train, holdout, canary, and what else is measured


class Questions(dict[str, Data]):
    """The data of every run, those that are asked alike loaded once; `notes`: what was left out of each."""

    def __init__(self) -> None:
        super().__init__()
        self.notes: dict[str, dict] = {}

    def load(self, job: Job) -> None:
        key = _data_key(job)
        if key not in self:
            self[key], self.notes[key] = tasks.load_with_notes(job.config.data, job.config.train.seed)

    def of(self, job: Job) -> Data:
        return self[_data_key(job)]

    def notes_of(self, job: Job) -> dict:
        return self.notes[_data_key(job)]


def _data_key(job: Job) -> str:
    return f"{job.config.train.seed} {job.config.data.model_dump_json()}"


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


def prepare(jobs: list[Job]) -> Questions:
    """Check all that can be checked without weights, and load the data. Raises InputError."""
    for source in {job.config.model: None for job in jobs}:
        sources.check_source(source)
    for name in {job.config.tracker: None for job in jobs}:
        tracker.check(name)
    data = Questions()
    for job in jobs:
        data.load(job)
        _check_judge(job.config.semantic.judge)
        _check_labels(job.config, data.of(job))
    if any(example.domain == "code" for splits in data.values() for split in splits.values() for example in split):
        from poc.scoring import sandbox

        sandbox.require()
    return data


def _check_judge(judge: str | None) -> None:
    if judge in (None, "policy") or Path(judge).is_dir() or sources.HUB_ID.fullmatch(judge):
        return
    raise InputError(
        f"semantic.judge: {judge!r} is neither policy, nor a folder, nor a Hub id (owner/name) of an NLI model"
    )


def _check_labels(config: RunConfig, data: Data) -> None:
    unlabelled, all_of_them = sum(example.answer is None for example in data["train"]), len(data["train"])
    used = [name for name in config.reward if name in NEED_LABELS]
    if not config.needs_labels:
        return
    if config.label_fraction is None and not unlabelled:
        return
    if config.label_fraction is None:
        raise InputError(
            f"reward {used[0]}: {unlabelled} of {all_of_them} training questions have no answer in column "
            f"{config.data.answer!r}: label them, set label_fraction to 1.0 to use the labels that are there, or leave "
            "this reward out (in a pilot: set your own arms)"
        )
    if config.label_fraction and not round(config.label_fraction * (all_of_them - unlabelled)):
        raise InputError(
            f"label_fraction = {config.label_fraction:g}: that is none of the {all_of_them - unlabelled} labelled "
            "training questions: raise it, label more, or set it to 0"
        )
    handed_over = config.switch is not None and config.switch.then == "verifiable"
    if not round(config.label_fraction * (all_of_them - unlabelled)) and (handed_over or not config.needs_none):
        raise InputError(
            f"label_fraction = {config.label_fraction:g}: no training question keeps a label, but "
            f"{'switch hands over to' if handed_over else 'the only reward is'} {used[0]}: raise it"
        )


def run(
    jobs: list[Job], data: Questions, watch: Watch, interrupted: Callable[[], bool],
    observer: Callable | None = None, kind: str = "train",
) -> str:  # fmt: skip
    """Run all jobs, or what is left of them; "done", "stopped" (the guard ended one), "interrupted" or "failed" (some
    arm did; the others ran).

    `observer(job, policy)` gives the `observe` of poc.trainer.train for one run. `kind`: train, equivalence, or improve
    (the loop of poc.improve instead).
    """
    states = [state for job in jobs if (state := ended(job.folder))]
    left = [job for job in jobs if not ended(job.folder)]
    for source in dict.fromkeys(job.config.model for job in left):
        same = [job for job in left if job.config.model == source]
        try:
            states += _run_model(same, data, watch, interrupted, observer, kind)
        except InputError as error:  # found with the weights only
            if not watch.done:
                raise
            states += [_refuse(job, error, watch) for job in same]
        if interrupted():
            break
    cut = interrupted() and len(states) < len(jobs)
    found = ["interrupted"] if cut else [state for state in ("interrupted", "failed", "stopped") if state in states]
    return found[0] if found else "done"


def steps_left(job: Job) -> int:
    """Steps that a job has still to take, as far as its last checkpoint tells."""
    done = [int(path.name[5:]) for path in job.folder.glob("checkpoints/step-*") if path.name[5:].isdecimal()]
    return 0 if ended(job.folder) else job.config.train.steps - max(done, default=0)


def ended(folder: Path) -> str | None:
    """How the run in `folder` ended, if there is nothing left to do there."""
    status = runfolder.read_outcome(folder).get("status")
    return status if status in ("done", "stopped") else None


def _run_model(jobs: list[Job], data: Questions, watch: Watch, interrupted, observer, kind: str) -> Iterator[str]:
    """Yield the state of each of one model's jobs; all are staged before the first one trains."""
    from poc.models import load_policy

    config = jobs[0].config
    watch.say(f"loading {config.model}")
    with the_world().together("loading the model"):
        policy = load_policy(
            config.model, quantization=config.quantization, lora_rank=config.lora.rank, lora_alpha=config.lora.alpha
        )
    for note in policy.notes:
        watch.say(note)
    start: dict[tuple, dict] = {}  # questions and way of asking -> evaluation of the start model
    for staged in [_stage_or_refuse(job, policy, data, watch) for job in jobs]:
        yield _run_job(staged, policy, watch, interrupted, observer, kind, start) if staged else "failed"
        if interrupted():
            return


def _stage_or_refuse(job: Job, policy, data: Questions, watch: Watch) -> "Staged | None":
    """The staged job; None for one that cannot run beside others that have; before any has, that is an InputError."""
    try:
        with the_world().together("staging a run"):
            return stage(job, policy, data.of(job), data.notes_of(job))
    except InputError as error:
        if not watch.done:
            raise
        _refuse(job, error, watch)
        return None


def _refuse(job: Job, error: InputError, watch: Watch) -> str:
    """An arm that cannot run beside others that did: its folder says why."""
    if the_world().is_writer:
        runfolder.write_refused(job.folder, job.config, _names(job), str(error))
    watch.say(f"{job.name} cannot run: {error}")
    return "failed"


@dataclass(frozen=True, slots=True)
class Staged:
    """A job that fits its model: what it trains on, how that is asked and compared, what is measured, what is noted."""

    job: Job
    examples: list[Example]
    encode: Callable[[Example], list[int]]
    cluster: Clustering
    views: list
    text: str
    facts: dict


def stage(job: Job, policy, data: Data, notes: dict | None = None) -> Staged:
    """Everything of a run that can be wrong once its model is there; `notes` are on its data. Raises InputError."""
    from poc.evaluate import View
    from poc.gap.selfscore import decide

    config = job.config
    if config.gap.every:
        decide(config.gap.verifier, policy)
    encode, prompt = prompt_encoder(job, policy)
    text = motivation(rewards.rules_of(config), config.motivation.condition)
    told, _ = prompt_encoder(job, policy, text)
    check_lengths(data, encode, policy, config)
    check_lengths({"train": data["train"]}, told, policy, config)
    examples = training_questions(config, data["train"])
    cluster = clustering(config, policy)
    guarded = cluster if config.guard.action != "off" else None
    views = _views(data, encode, told if config.motivation.evaluate else None, guarded)
    views += [View(GAP, data["holdout"][: config.gap.questions], encode)] if config.gap.every else []
    labels = sum(example.answer is not None for example in examples) if config.needs_labels else 0
    facts = _facts(job, policy, data, prompt | {"motivation": text}, labels)
    facts["data"] |= {"left_out": notes} if notes else {}
    train_encode = told if config.label_fraction is None else _told_by_label(job, policy)
    return Staged(job, examples, train_encode, cluster, views, text, facts)


def _told_by_label(job: Job, policy) -> Callable[[Example], list[int]]:
    """With partial labels each prompt is told the rules that score it."""
    rules = rewards.rules_of(job.config)
    ways = {}
    for labelled in (True, False):
        mine = [reward for reward in rules if (reward.name in NEED_LABELS) == labelled]
        if job.config.motivation.condition == "score_only" and not labelled:
            mine = []  # without a label there is a format at most
        ways[labelled], _ = prompt_encoder(job, policy, motivation(mine, job.config.motivation.condition))
    return lambda example: ways[example.answer is not None](example)


def _run_job(staged: Staged, policy, watch: Watch, interrupted, observer, kind: str, start: dict) -> str:
    """One run from fresh adapter to outcome.json."""
    from poc.improve import improve
    from poc.trainer import train

    job, config, loop = staged.job, staged.job.config, improve if kind == "improve" else train
    try:
        folder = sharedfolder.opened(job.folder, config, staged.facts | ({} if kind == "train" else {"kind": kind}))
    except InputError as error:  # somebody else writes there, or what lies there is another run
        if not watch.done:
            raise
        watch.say(f"{job.name} cannot run: {error}")
        return "failed"
    watch.start_run(job.name, config.train.steps)
    with _outcome(folder, job, watch) as state, the_world().shared_fate():
        policy.reset_adapter(config.train.seed)
        state["status"], state["reason"], state["kept"] = loop(
            config, policy, staged.examples, folder,
            encode=staged.encode, cluster=staged.cluster, views=staged.views, measure=_measure(staged, policy, start),
            interrupted=interrupted, watch=watch, observe=observer and observer(job, policy),
        )  # fmt: skip
    return state["status"]


def _measure(staged: "Staged", policy, start: dict) -> Callable:
    """The `measure` of poc.trainer.train. The start model is measured once for each way of asking the same questions,
    at the cost of the first arm: a fresh adapter changes nothing. `again`: measured, whatever is known."""
    from poc.evaluate import evaluate
    from poc.gap import measure as gap

    def measure(view, step: int, config: RunConfig, again: bool = False) -> dict:
        form, told = staged.facts["model"]["prompt_format"], staged.text if view.name == MOTIVATED else ""
        clustered = view.cluster and config.semantic.model_dump_json()
        asked = config.gap.model_dump_json() if view.name == GAP else ""
        key = form, tasks.fingerprint(view.examples), told, config.train.max_new_tokens, clustered, asked
        if step == 0 and key in start and not again:
            return start[key] | {"seconds": 0.0}
        if view.name == GAP:
            found = gap.measure(policy, view.examples, config, step=step, encode=view.encode)
        else:
            found = evaluate(policy, view.examples, config, step=step, encode=view.encode, cluster=view.cluster)
        if step == 0:
            start[key] = found
        return found

    return measure


def training_questions(config: RunConfig, examples: list[Example]) -> list[Example]:
    """The training questions with the labels that the rewards may see."""
    if config.label_fraction is None:
        return examples
    return hybrid.hide_labels(examples, config.label_fraction, config.train.seed)


def _views(data: Data, encode, told, cluster) -> list:
    """What is measured: the hold-out, the levels never trained on, with `cluster` the canary, and, with `told`, the
    hold-out with motivation."""
    from poc.evaluate import View

    views = [View("", data["holdout"], encode)]
    views += [View(name, data[name], encode) for name in data if name.startswith(BESIDE)]
    views += [View(CANARY, data["canary"], encode, cluster)] if cluster and data["canary"] else []
    return views + ([View(MOTIVATED, data["holdout"], told)] if told else [])


def clustering(config: RunConfig, policy) -> Clustering:
    """Which answers mean the same, as `semantic.cluster` says; a judge is loaded here."""
    if config.semantic.cluster != "entailment":
        return {"exact": meanings.exact, "math": meanings.mathematical}[config.semantic.cluster]
    from poc.judges import policy_judge

    judge = config.semantic.judge
    return meanings.entailed(policy_judge(policy) if judge == "policy" else _nli(judge))


@lru_cache(maxsize=1)
def _nli(source: str):
    """One copy in memory, however many arms ask it."""
    from poc.judges import nli_judge

    return nli_judge(source)


def _facts(job: Job, policy, data: Data, prompt: dict, labels: int) -> dict:
    """What environment.json says of model, data and arm."""
    hashes = {split: tasks.fingerprint(examples) for split, examples in data.items()}
    return {
        "model": {"source": policy.source, "fingerprint": policy.fingerprint, **prompt},
        "data": hashes | {"counts": {split: len(examples) for split, examples in data.items()}},
        "labels": labels,
    } | _names(job)


def _names(job: Job) -> dict:
    seed = job.config.train.seed
    return {"arm": job.name.removesuffix(f"-seed{seed}"), "role": job.role, "seed": seed}


@contextmanager
def _outcome(folder: runfolder.RunFolder, job: Job, watch: Watch) -> Iterator[dict]:
    """Writes outcome.json whatever happens; a RunError ends this run only, anything else goes on up."""
    state = {"status": "failed", "reason": None, "kept": None}
    peak.begin()
    try:
        yield state
    except (RunError, InputError) as error:
        state["reason"] = str(error)
        watch.say(f"{job.name} failed: {error}")
    except BaseException as error:
        state |= {"status": "interrupted" if isinstance(error, KeyboardInterrupt) else "failed", "reason": repr(error)}
        raise
    finally:
        try:
            outcome = folder.log_outcome(state["status"], state["reason"], state["kept"])
            if outcome:
                watch.say(f"{job.name}: {told(outcome, job.config.train.steps)}")
        finally:
            folder.close()


def prompt_encoder(job: Job, policy, told: str = "") -> tuple[Callable[[Example], list[int]], dict]:
    """A function from an example to its prompt's tokens (each rendered once), and what the report says about it.

    `told` is added to the instruction. Raises InputError for a format that has no place for it.
    """
    from poc.prompts import default_format, render

    prompt = job.config.prompt
    form = prompt.format if prompt.format != "auto" else default_format(policy.source, policy.tokenizer, job.role)
    if told and form == "bare":
        raise InputError(
            f"motivation: {policy.source} is asked the bare question, which has no place for the rules: set "
            "prompt.format to plain, or take a model with a chat template"
        )
    cache: dict[str, list[int]] = {}

    def encode(example: Example) -> list[int]:
        if example.id not in cache:
            own = tasks.instruction(example) if prompt.instruction is None else prompt.instruction
            instruction = "\n\n".join(part for part in (own, told) if part)
            cache[example.id] = render(example.question, policy.tokenizer, form, instruction)
        return cache[example.id]

    said = "the domain's own" if prompt.instruction is None else prompt.instruction
    instruction = "\n\n".join(part for part in (said, told) if part)
    return encode, {"prompt_format": form, "instruction": instruction if form != "bare" else ""}


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
