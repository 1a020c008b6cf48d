"""Configuration: every option of a run and of a pilot, checked (poc.configfile reads it).

Every key has a default, so that `poc train` and `poc pilot` run without a file. An unknown key is an error, and so is
a value that cannot work. The resolved copy is saved with the run.
"""

import difflib
import math
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationInfo, field_validator, model_validator

NEED_LABELS = ("verifiable", "knights_knaves")
RULE_BASED = (*NEED_LABELS, "format")  # rewards that can be written out as rules (poc.motivation)
REWARDS = (
    "self_certainty", "token_entropy", "trajectory_entropy", "semantic_entropy", "majority_vote", *NEED_LABELS,
    "format", "random",
)  # fmt: skip
# Levels 0 .. n-1 of each domain, the module of that name in poc.tasks: to add one takes this line and that file.
DOMAIN_LEVELS = {"math": 6, "code": 4, "science": 5, "logic": 13, "simulation": 5, "table": 4}
KNIGHTS_LEVELS = 7  # of logic: Knights and Knaves with 2 to 8 people
# The domain that scores the rows of a public set's format (poc.tasks.formats); a kit file's rows name theirs.
FORMATS = {
    "gsm8k": "math", "math": "math", "mbpp": "code", "humaneval": "code", "gpqa": "science", "mmlu": "science",
    "kit": None,
}  # fmt: skip
TRANSITIONAL_WORDS = (
    "but", "wait", "however", "alternatively", "suppose", "hmm", "actually", "let me check", "let me verify",
    "double-check", "maybe", "instead", "on the other hand",
)  # fmt: skip


class Section(BaseModel):
    """Strict: no unknown key, no silent conversion of a string to a number, no NaN."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


# YAML reads 1e-5 as a string and 1 as an integer: both are numbers to the person who typed them.
Number = Annotated[float, BeforeValidator(lambda v: _as_float(v))]
Weight = Annotated[Number, Field(ge=-1000, le=1000)]


def _as_float(value: Any) -> Any:
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value


class Data(Section):
    """Generated questions of a domain, or the user's own (`file` or `dataset`). The counts are per split."""

    domain: str = "math"
    domains: list[str] = []  # several in equal shares, instead of `domain`
    measure: list[str] = []  # domains whose hold-out is measured as well, whatever is trained on
    level: int = Field(0, ge=0)
    levels: list[Annotated[int, Field(ge=0)]] = []  # several in equal shares, instead of `level`
    ood_levels: list[Annotated[int, Field(ge=0)]] = []  # measured as well, never trained on
    train: int = Field(512, ge=1, le=1_000_000)
    holdout: int = Field(256, ge=2, le=1_000_000)
    canary: int = Field(64, ge=0, le=1_000_000)
    file: str | None = None  # .jsonl, .csv or .parquet
    dataset: str | None = None  # a Hugging Face dataset: a Hub id or a local folder
    subset: str | None = None  # its configuration name
    split: str = "train"  # its split
    format: str | None = (
        None  # of a public set's rows (see FORMATS), or kit: rows that the kit wrote; null: prompt, answer
    )
    prompt: str = "prompt"  # column of the question: a string or chat messages
    answer: str = "answer"  # column of the gold; may be missing or empty in any row
    answer_after: str | None = None  # the gold is what follows the last of these in the answer column
    drop: str | None = None  # a dropped.jsonl of `poc difficulty`: training questions to leave out

    @model_validator(mode="after")
    def _check(self):
        if self.file and self.dataset:
            raise ValueError(f"file ({self.file}) and dataset ({self.dataset}) are both set: keep one")
        if self.format is not None and not self.own:
            raise ValueError(f"format = {self.format!r} is how the rows of a file or dataset are read: set one of them")
        if self.format is not None and self.format not in FORMATS:
            raise ValueError(f"format: unknown {self.format!r}{nearest(self.format, FORMATS)}")
        unused = ("prompt", "answer", "answer_after") if self.format else ("domain", "level") if self.own else ()
        if ignored := [k for k in unused if getattr(self, k) != type(self).model_fields[k].default]:
            why = (
                f"format {self.format} names its columns"
                if self.format
                else "file and dataset have questions of their own"
            )
            raise ValueError(f"{ignored[0]} = {getattr(self, ignored[0])!r} would be ignored: {why}; leave it out")
        if generated := [k for k in ("levels", "ood_levels", "domains", "measure") if self.own and getattr(self, k)]:
            raise ValueError(f"{generated[0]}: for the kit's own questions, not for file or dataset")
        for key in ("domain", "domains", "measure"):
            self._check_domains(key)
        for key in ("level", "levels", "ood_levels") if not self.own else ():
            self._check_levels(key)
        return self

    def _check_domains(self, key: str) -> None:
        listed = getattr(self, key) if key != "domain" else [self.domain]
        if unknown := [name for name in listed if name not in DOMAIN_LEVELS]:
            raise ValueError(f"{key}: unknown {unknown[0]!r}{nearest(unknown[0], DOMAIN_LEVELS)}")
        if twice := [name for name in listed if listed.count(name) > 1]:
            raise ValueError(f"{key}: {twice[0]!r} is named twice")

    def _check_levels(self, key: str) -> None:
        fewest = min([*self.trained_domains, *self.measure], key=DOMAIN_LEVELS.get)
        value, most = getattr(self, key), DOMAIN_LEVELS[fewest] - 1
        listed = value if isinstance(value, list) else [value]
        if wrong := [level for level in listed if level > most]:
            raise ValueError(f"{key}: {fewest} has levels 0 to {most}, got {wrong[0]}")
        if twice := [x for x in listed if listed.count(x) > 1 or (key == "ood_levels" and x in self.trained_levels)]:
            raise ValueError(f"{key}: level {twice[0]} is named twice: name it once, in levels or in ood_levels")

    @property
    def trained_levels(self) -> list[int]:
        return self.levels or [self.level]

    @property
    def trained_domains(self) -> list[str]:
        return self.domains or [self.domain]

    @property
    def own(self) -> bool:
        return bool(self.file or self.dataset)


class Prompt(Section):
    """How a question becomes tokens.

    bare: the question and a line break (what lab:base learned); plain: instruction, "Question: ...", "Answer:";
    chat: the tokenizer's chat template with the instruction as system message. auto: bare for lab:base, chat for a
    tokenizer with a chat template (in a pilot: for the instruct model only), else plain.
    """

    format: Literal["auto", "bare", "plain", "chat"] = "auto"
    instruction: str | None = None  # None: the own one of each question's domain and level


class Lora(Section):
    rank: int = Field(16, ge=1)
    alpha: Number = Field(32.0, gt=0)


class Train(Section):
    steps: int = Field(60, ge=1, le=1_000_000)
    prompts_per_step: int = Field(16, ge=1)
    group_size: int = Field(8, ge=2)
    learning_rate: Number | None = Field(None, gt=0)  # None: 2e-4 for the lab models, 3e-5 for others
    temperature: Number = Field(1.0, gt=0)
    max_new_tokens: int | None = Field(None, ge=1)  # None: the domain's own
    rollout_reuse: int = Field(1, ge=1)  # steps that one rollout serves, each with its own prompts of it
    inner_epochs: int = Field(1, ge=1)  # passes over a rollout; every pass takes rollout_reuse steps
    clip: Number = Field(0.2, gt=0, lt=1)
    kl: Number = Field(0.0, ge=0)  # weight of the k3 estimate against the start model
    weight_decay: Number = Field(0.0, ge=0)
    max_grad_norm: Number = Field(1.0, gt=0)
    memory_gib: Number | None = Field(None, gt=0)  # of each process; null: what is free (poc.budget)
    micro_batch: int = Field(128, ge=1)  # completions per forward and backward pass, at most: memory may allow fewer
    sample_rows: int = Field(1024, ge=1)  # completions that are sampled at once, at most
    recompute: bool | None = None  # gradient checkpointing; null: where memory needs it
    optimizer: Literal["adamw", "adamw8bit"] = "adamw"  # adamw8bit: bitsandbytes' 8-bit moments
    checkpoint_every: int = Field(5, ge=1)  # steps; every evaluated step has a checkpoint as well
    nonfinite: Literal["stop", "skip"] = "stop"  # when loss, gradient, a reward or a statistic is NaN or infinite
    nonfinite_cap: int = Field(3, ge=1)  # skipped steps; one more stops the run
    seed: int = Field(0, ge=0, lt=2**31)


class Evaluate(Section):
    every: int = Field(5, ge=1)  # steps; the start and the end are always evaluated
    samples: int = Field(4, ge=1)  # completions per prompt at temperature 1, beside the greedy one
    transitional_words: list[str] = list(TRANSITIONAL_WORDS)


class Semantic(Section):
    """Of semantic_entropy and majority_vote: which answers mean the same, and which prompts are worth learning from."""

    cluster: Literal["auto", "exact", "math", "entailment"] = "auto"  # auto: as the domain says (CLUSTER there)
    judge: str | None = None  # of entailment: "policy" (the start model), or an NLI model: a Hub id or a folder
    low: Number | None = 0.0  # semantic_entropy keeps the prompts with low < H < high; null: no limit
    high: Number | None = 1.0
    unit: Literal["share", "nats"] = "share"  # of low and high: a share of ln(group size), or nats

    @model_validator(mode="after")
    def _check(self):
        if self.low is not None and self.high is not None and self.low >= self.high:
            raise ValueError(f"low = {self.low:g} and high = {self.high:g} are crossed: no prompt would be kept")
        if self.unit == "share" and not (0 <= (self.low or 0) < 1 and 0 < (1 if self.high is None else self.high) <= 1):
            raise ValueError(f"low = {self.low}, high = {self.high}: a share lies in 0 to 1; set unit to nats for nats")
        if self.cluster == "entailment" and not self.judge:
            raise ValueError(
                "cluster: entailment needs a judge: set semantic.judge to policy, or to an NLI model (a Hub id or a "
                "local folder)"
            )
        if self.high is not None and self.high <= 0:
            raise ValueError(f"high = {self.high:g}: entropy is never below that: no prompt would be kept")
        if self.judge and self.cluster != "entailment":
            raise ValueError(f"judge: {self.judge!r} is used by cluster: entailment only; set that or leave it out")
        return self


class Schedule(Section):
    """A part's weight over time: from its weight in `reward` to `to`, in the first `over` steps (null: in all)."""

    shape: Literal["constant", "linear", "cosine"] = "linear"
    to: Weight = 0.0
    over: int | None = Field(None, ge=1)


class Switch(Section):
    """Label-free parts first; once the policy is sure of itself, or at a step, those that need labels, or the end."""

    entropy: Number | None = Field(None, ge=0)  # nats per token, mean of the last three steps' rollouts
    step: int | None = Field(None, ge=1)  # after this step at the latest
    then: Literal["verifiable", "stop"] = "verifiable"

    @model_validator(mode="after")
    def _check(self):
        if self.entropy is None and self.step is None:
            raise ValueError("entropy and step are both missing, this switch would never happen: set one or both")
        return self


class Motivation(Section):
    """MeRF: the reward's rules in the training prompt. `evaluate`: measure with them too; without them always."""

    condition: Literal["none", "full", "score_only", "adverse"] = "none"
    evaluate: bool = False

    @model_validator(mode="after")
    def _check(self):
        if self.evaluate and self.condition == "none":
            raise ValueError("evaluate: there are no rules to measure with: set condition to full, or leave it out")
        return self


Reward = Annotated[dict[str, Weight], Field(min_length=1)]
Fraction = Annotated[Number, Field(ge=0, le=1)]


# From the weakest to the strongest. YAML reads off as false.
Action = Annotated[
    Literal["off", "warn", "stop", "rollback"], BeforeValidator(lambda value: "off" if value is False else value)
]


class Rule(Section):
    """One rule of the guard: what it may come to, for how many consecutive looks, and what is done then."""

    limit: Number = Field(gt=0)
    patience: int = Field(3, ge=1)  # steps; evaluations of the canary for canary_drop, agreement_drop and past_peak
    action: Action = "rollback"


class Guard(Section):
    """When a run is warned of, stopped, or stopped and taken back to its best checkpoint (poc.guard has the maths).

    A rule given in part keeps the rest of its own defaults. `action` is the strongest that any rule may take.
    """

    action: Action = "rollback"
    entropy_collapse: Rule = Rule(limit=0.15)  # share of the first steps' mean
    entropy_explosion: Rule = Rule(limit=2.0)
    length_collapse: Rule = Rule(limit=0.5)
    length_runaway: Rule = Rule(limit=2.0)
    repetition: Rule = Rule(limit=0.2)  # share of what was free of it in the first steps
    truncation: Rule = Rule(limit=0.3)
    zero_variance: Rule = Rule(limit=0.8, action="warn")
    charset_drift: Rule = Rule(limit=0.1)
    kl: Rule = Rule(limit=1.0, patience=2)  # nats per token, from the start model
    canary_drop: Rule = Rule(limit=2.3)  # standard errors below the best
    agreement_drop: Rule = Rule(limit=2.1)
    past_peak: Rule = Rule(limit=1.0)  # only warns where the canary has labels

    @field_validator("*", mode="before")
    @classmethod
    def _own_defaults(cls, given: Any, info: ValidationInfo) -> Any:
        default = cls.model_fields[info.field_name].default
        return default.model_dump() | given if isinstance(default, Rule) and isinstance(given, dict) else given

    @model_validator(mode="after")
    def _check(self):
        for name in ("entropy_collapse", "length_collapse"):
            self._check_limit(name, "a share of the first steps' mean, below 1", below=1)
        for name in ("entropy_explosion", "length_runaway"):
            self._check_limit(name, "a multiple of the first steps' mean, above 1", above=1)
        for name in ("repetition", "truncation", "zero_variance", "charset_drift"):
            self._check_limit(name, "a share, below 1", below=1)
        return self

    def _check_limit(self, name: str, what: str, above: float = 0, below: float = math.inf) -> None:
        if not above < (limit := getattr(self, name).limit) < below:
            raise ValueError(f"{name}.limit = {limit:g}: it is {what}")


class Gap(Section):
    """Solver and verifier capability, measured while a run trains (poc.gap)."""

    every: int | None = Field(None, ge=1)  # steps; null: not measured
    questions: int = Field(64, ge=2)  # of the hold-out, at most
    candidates: int = Field(8, ge=2)  # answers to a question, of which the model chooses one
    # How the model judges its candidates; auto: true_false where its tokenizer can answer that, else none.
    verifier: Literal["auto", "true_false", "quality", "none"] = "auto"
    threshold: Number = Field(0.5, ge=0, le=1)  # of that judgement


class External(Section):
    """Answers from outside that `poc improve` learns beside the model's own choices."""

    answers: str  # a .jsonl of {"prompt", "completion"}, or a model that is asked
    count: int = Field(64, ge=1)  # questions, each once
    when: Literal["early", "uniform", "late"] = "uniform"  # all in round 1, evenly, all in round 0.8 R


class Improve(Section):
    """Of `poc improve`: a round is a step, with train.prompts_per_step questions of train.group_size candidates."""

    batch: int = Field(16, ge=1)  # chosen answers per optimizer step
    external: External | None = None


class Cost(Section):
    """What time and labels cost, in one currency; null: not known, and nothing is said of it (poc.money)."""

    per_hour: Number | None = Field(None, ge=0)  # renting or writing off the machine
    watts: Number | None = Field(None, ge=0)  # what it draws while it trains
    tariff: Number | None = Field(None, ge=0)  # per kilowatt-hour
    per_label: Number | None = Field(None, ge=0)  # for one question that a person answers
    currency: str = Field("USD", pattern=r"^[A-Za-z]{3}$")

    @model_validator(mode="after")
    def _check(self):
        if (self.watts is None) != (self.tariff is None):
            raise ValueError(f"watts = {self.watts} and tariff = {self.tariff}: power costs take both")
        return self


class _Common(Section):
    quantization: Literal["nf4", "none"] | None = None  # None: nf4 on CUDA, none on the CPU
    tracker: Literal["none", "tensorboard", "trackio", "wandb"] = "none"  # where numbers go as well (poc.tracker)
    data: Data = Data()
    prompt: Prompt = Prompt()
    lora: Lora = Lora()
    train: Train = Train()
    evaluate: Evaluate = Evaluate()
    length_norm: Literal["mean", "sum"] = "mean"  # of trajectory_entropy; sum pays for short answers
    semantic: Semantic = Semantic()
    motivation: Motivation = Motivation()
    guard: Guard = Guard()
    gap: Gap = Gap()
    cost: Cost = Cost()

    @model_validator(mode="after")
    def _check_gap(self):
        if self.gap.every and self.gap.every % self.evaluate.every:
            raise ValueError(
                f"gap.every = {self.gap.every} is no multiple of evaluate.every = {self.evaluate.every}: solver and "
                f"verifier are measured where the hold-out is: make it one, or set evaluate.every={self.gap.every}"
            )
        return self


class Mix(Section):
    """What one run is paid for."""

    reward: Reward
    # null: every part speaks on every prompt. Else this share of the labelled training questions keeps its label and
    # gets the parts that need one; the other questions get the other parts.
    label_fraction: Fraction | None = None
    schedule: dict[str, Schedule] = {}
    switch: Switch | None = None

    @model_validator(mode="after")
    def _check_mix(self):
        for name in (*self.reward, *self.schedule):
            if name not in REWARDS:
                raise ValueError(f"unknown reward {name!r}{nearest(name, REWARDS)}")
        if stray := [name for name in self.schedule if name not in self.reward]:
            raise ValueError(f"schedule.{stray[0]}: not in reward: give it a weight there (0.0 to start without it)")
        if not self._ever(lambda name: True):
            raise ValueError(f"all weights are 0 in {self.reward}: nothing would be learned")
        if self.label_fraction is not None and not self.needs_labels:
            raise ValueError(f"label_fraction = {self.label_fraction:g}: no reward here uses labels: add verifiable")
        if self.switch and self.switch.then == "stop" and self.needs_labels:
            raise ValueError(
                "switch.then = 'stop': verifiable would never speak: leave it out, or set then: verifiable"
            )
        if self.switch and not self.needs_none:
            raise ValueError("switch: it starts with rewards that need no labels: add one, for example self_certainty")
        if self.switch and self.switch.then == "verifiable" and not self.needs_labels:
            raise ValueError("switch.then = 'verifiable': no reward here uses labels: add verifiable, or set stop")
        return self

    def _ever(self, wanted) -> bool:
        """Whether a wanted part has a weight at some step."""
        return any(wanted(name) and any(self._weights(name)) for name in self.reward)

    def _weights(self, name: str) -> tuple[float, ...]:
        """The first and the last weight of a part."""
        weight, plan = self.reward[name], self.schedule.get(name)
        if plan is None or plan.shape == "constant":
            return (weight,)
        return (plan.to,) if plan.over == 1 else (weight, plan.to)

    @property
    def needs_none(self) -> bool:
        """Whether some part needs no label."""
        return self._ever(lambda name: name not in NEED_LABELS)

    @property
    def needs_labels(self) -> bool:
        return self._ever(lambda name: name in NEED_LABELS)


class RunConfig(_Common, Mix):
    """One training run: `poc train`."""

    model: str = "lab:base"
    reward: Reward = {"self_certainty": 1.0}  # `poc improve` learns its own choices and has no use for it
    improve: Improve = Improve()

    @model_validator(mode="after")
    def _check(self):
        if "knights_knaves" in self.reward and (self.data.own or self.data.trained_domains != ["logic"]):
            raise ValueError("reward knights_knaves is for Knights and Knaves: set data.domain to logic")
        if "knights_knaves" in self.reward and max(self.data.trained_levels) >= KNIGHTS_LEVELS:
            raise ValueError(
                f"reward knights_knaves is for Knights and Knaves: levels 0 to {KNIGHTS_LEVELS - 1} of logic"
            )
        told = NEED_LABELS if self.motivation.condition == "score_only" else RULE_BASED
        if self.motivation.condition != "none" and (self.switch or any(name in RULE_BASED for name in self.schedule)):
            raise ValueError(
                "motivation: the rules in the prompt cannot follow a switch or a schedule of what they pay"
            )
        if self.motivation.condition != "none" and not self._ever(lambda name: name in told):
            raise ValueError(
                f"motivation.condition = {self.motivation.condition!r}: no reward here has rules to write into the "
                f"prompt: add one of {', '.join(told)}"
            )
        if (
            "semantic_entropy" in self.reward
            and self.semantic.unit == "nats"
            and (self.semantic.low or 0) >= math.log(self.train.group_size)
        ):
            raise ValueError(
                f"semantic.low = {self.semantic.low:g} nats: groups of {self.train.group_size} have at most "
                f"{math.log(self.train.group_size):.2f}: no prompt would be kept"
            )
        return self


class Arm(Mix):
    """One arm of a pilot: a model (a key of `models`), its reward mix, and what it does unlike the other arms."""

    model: str
    name: str | None = Field(None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")
    domains: list[str] = []  # trained on instead of data.domain or data.domains
    semantic: Semantic | None = None
    motivation: Motivation | None = None

    @property
    def label(self) -> str:
        if self.name:
            return self.name
        labels = [] if self.label_fraction is None else [f"labels{self.label_fraction:g}"]
        told = [self.motivation.condition] if self.motivation else []
        trained = ["+".join(self.domains)] if self.domains else []
        return "-".join([self.model, *trained, *self.reward, *labels, *told])


def _arm(model: str, **reward: float) -> Arm:
    return Arm(model=model, reward=reward)


DEFAULT_ARMS = (
    _arm("base", self_certainty=1.0),
    _arm("base", token_entropy=1.0),
    _arm("base", trajectory_entropy=1.0),
    _arm("base", verifiable=1.0),
    _arm("base", random=1.0),
    _arm("base", self_certainty=1.0, verifiable=1.0),
    _arm("instruct", self_certainty=1.0),
    _arm("instruct", verifiable=1.0),
)


class PilotConfig(_Common):
    """Arms over seeds: `poc pilot`."""

    models: dict[str, str] = {"base": "lab:base", "instruct": "lab:instruct"}
    arms: list[Arm] = Field(list(DEFAULT_ARMS), min_length=1)
    seeds: list[Annotated[int, Field(ge=0, lt=2**31)]] = Field([0], min_length=1)

    @model_validator(mode="after")
    def _check(self):
        for i, arm in enumerate(self.arms):
            if arm.model not in self.models:
                raise ValueError(f"arms.{i}.model: {arm.model!r} is not in models{nearest(arm.model, self.models)}")
        if self.train.seed:
            raise ValueError(
                f"train.seed = {self.train.seed}: a pilot takes its seeds from seeds, for example seeds=[0,1]"
            )
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds: {self.seeds} names a seed twice")
        labels = [arm.label for arm in self.arms]
        if len(set(labels)) < len(labels):
            raise ValueError(f"arms: two arms are called {next(x for x in labels if labels.count(x) > 1)!r}: name them")
        for arm in self.arms:
            self.run_config(arm, 0)
        return self

    def run_config(self, arm: Arm, seed: int) -> RunConfig:
        """The configuration of one arm's run."""
        common = self.model_dump(exclude={"models", "arms", "seeds"})
        common["train"]["seed"] = seed
        common["data"] |= {"domains": arm.domains} if arm.domains else {}
        arm_keys = arm.model_dump(exclude={"model", "name", "domains"})
        own = {key: value for key, value in arm_keys.items() if value is not None}
        return RunConfig.model_validate(common | own | {"model": self.models[arm.model]})

    def mixed(self, shares: list[float]) -> "PilotConfig":
        """The same pilot from mixed starts: the first arm's reward on (1 - m) A + m B for every share m.

        A and B are the first two models. Raises ValueError for one model only, or a share outside 0 to 1.
        """
        if len(self.models) < 2:
            raise ValueError("models: mixing needs two, a base and an instruct model")
        if wrong := [m for m in shares if not 0 <= m <= 1]:
            raise ValueError(f"{wrong[0]:g} is not a share from 0 (all base) to 1 (all instruct)")
        if len({f"{m:g}" for m in shares}) < len(shares):
            raise ValueError("a share is named twice")
        first, second = list(self.models.values())[:2]
        models = {f"mix-{m:g}": f"mix:{first}+{second}@{m:g}" for m in shares}
        arms = [self.arms[0].model_copy(update={"model": name, "name": None}) for name in models]
        return self.model_copy(update={"models": models, "arms": arms})

    def transferred(self) -> "PilotConfig":
        """The cross-domain study (GURU): the first arm's reward on each domain alone and on all in equal shares.

        For every model; each run is measured on every domain of `data.measure` (all six, if none is named). Raises
        ValueError for the user's own questions.
        """
        if self.data.own:
            raise ValueError("data: transfer is between the kit's own domains: leave file and dataset out")
        domains = self.data.measure or list(DOMAIN_LEVELS)
        if len(domains) < 2:
            raise ValueError(f"data.measure = {domains}: transfer needs two domains or more")
        trained = [(name, [name]) for name in domains] + [("mix", domains)]
        arms = [
            self.arms[0].model_copy(update={"model": model, "name": f"{model}-{name}", "domains": part})
            for model in self.models
            for name, part in trained
        ]
        data = self.data.model_copy(update={"measure": domains, "domains": [], "domain": domains[0]})
        return PilotConfig.model_validate(self.model_copy(update={"arms": arms, "data": data}).model_dump())


def nearest(name: str, valid) -> str:
    """ "; did you mean 'x'?" or the list of valid names."""
    close = difflib.get_close_matches(name, list(valid), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else f"; valid: {', '.join(valid)}"
