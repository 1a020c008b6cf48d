"""Configuration: pydantic models, YAML in, an unknown key is an error, the resolved copy is saved with the run.

Every key has a default, so that `poc train` and `poc pilot` run without a file. Whatever is wrong is an InputError of
one line that names the key and the value (for a name: the nearest valid one), before any weights load.
"""

import difflib
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from poc.records import InputError

REWARDS = ("self_certainty", "token_entropy", "trajectory_entropy", "verifiable", "random")
DOMAIN_LEVELS = {"math": 4, "logic": 7}  # levels 0 .. n-1; tests hold this to poc.tasks without importing it here
TRANSITIONAL_WORDS = (
    "but", "wait", "however", "alternatively", "suppose", "hmm", "actually", "let me check", "let me verify",
    "double-check", "maybe", "instead", "on the other hand",
)  # fmt: skip
MAX_FILE_BYTES = 1_000_000


class Section(BaseModel):
    """Strict: no unknown key, no silent conversion of a string to a number, no NaN."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


# YAML reads 1e-5 as a string and 1 as an integer: both are numbers to the person who typed them.
Number = Annotated[float, BeforeValidator(lambda v: _as_float(v))]


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
    level: int = Field(0, ge=0)
    train: int = Field(512, ge=1, le=1_000_000)
    holdout: int = Field(256, ge=2, le=1_000_000)
    canary: int = Field(64, ge=0, le=1_000_000)
    file: str | None = None  # .jsonl, .csv or .parquet
    dataset: str | None = None  # a Hugging Face dataset: a Hub id or a local folder
    subset: str | None = None  # its configuration name
    split: str = "train"  # its split
    prompt: str = "prompt"  # column of the question: a string or chat messages
    answer: str = "answer"  # column of the gold; may be missing or empty in any row
    answer_after: str | None = None  # the gold is what follows the last of these in the answer column

    @model_validator(mode="after")
    def _check(self):
        if self.file and self.dataset:
            raise ValueError(f"file ({self.file}) and dataset ({self.dataset}) are both set: keep one")
        if self.domain not in DOMAIN_LEVELS:
            raise ValueError(f"domain: unknown {self.domain!r}{nearest(self.domain, DOMAIN_LEVELS)}")
        if not self.own and self.level >= DOMAIN_LEVELS[self.domain]:
            raise ValueError(f"level: {self.domain} has levels 0 to {DOMAIN_LEVELS[self.domain] - 1}, got {self.level}")
        return self

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
    instruction: str | None = None  # None: the domain's own


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
    inner_epochs: int = Field(1, ge=1)
    clip: Number = Field(0.2, gt=0, lt=1)
    kl: Number = Field(0.0, ge=0)  # weight of the k3 estimate against the start model
    weight_decay: Number = Field(0.0, ge=0)
    max_grad_norm: Number = Field(1.0, gt=0)
    micro_batch: int = Field(128, ge=1)  # completions per forward and backward pass
    sample_rows: int = Field(1024, ge=1)  # completions that are sampled at once
    seed: int = Field(0, ge=0, lt=2**31)


class Evaluate(Section):
    every: int = Field(5, ge=1)  # steps; the start and the end are always evaluated
    samples: int = Field(4, ge=1)  # completions per prompt at temperature 1, beside the greedy one
    transitional_words: list[str] = list(TRANSITIONAL_WORDS)


def _check_reward(reward: dict[str, float]) -> dict[str, float]:
    for name in reward:
        if name not in REWARDS:
            raise ValueError(f"unknown reward {name!r}{nearest(name, REWARDS)}")
    if not any(reward.values()):
        raise ValueError(f"all weights are 0 in {reward}: nothing would be learned")
    return reward


Reward = Annotated[dict[str, Number], Field(min_length=1)]


class _Common(Section):
    quantization: Literal["nf4", "none"] | None = None  # None: nf4 on CUDA, none on the CPU
    data: Data = Data()
    prompt: Prompt = Prompt()
    lora: Lora = Lora()
    train: Train = Train()
    evaluate: Evaluate = Evaluate()
    length_norm: Literal["mean", "sum"] = "mean"  # of trajectory_entropy; sum pays for short answers


class RunConfig(_Common):
    """One training run: `poc train`."""

    model: str = "lab:base"
    reward: Reward = {"self_certainty": 1.0}

    @model_validator(mode="after")
    def _check(self):
        _check_reward(self.reward)
        return self


class Arm(Section):
    """One arm of a pilot: a model (a key of `models`) and its reward mix."""

    model: str
    reward: Reward
    name: str | None = Field(None, pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")

    @property
    def label(self) -> str:
        return self.name or f"{self.model}-{'+'.join(self.reward)}".replace("+", "-")


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
            _check_reward(arm.reward)
        if self.train.seed:
            raise ValueError(
                f"train.seed = {self.train.seed}: a pilot takes its seeds from seeds, for example seeds=[0,1]"
            )
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds: {self.seeds} names a seed twice")
        labels = [arm.label for arm in self.arms]
        if len(set(labels)) < len(labels):
            raise ValueError(f"arms: two arms are called {next(x for x in labels if labels.count(x) > 1)!r}: name them")
        return self

    def run_config(self, arm: Arm, seed: int) -> RunConfig:
        """The configuration of one arm's run."""
        common = self.model_dump(exclude={"models", "arms", "seeds"})
        common["train"]["seed"] = seed
        return RunConfig(model=self.models[arm.model], reward=arm.reward, **common)


def nearest(name: str, valid) -> str:
    """ "; did you mean 'x'?" or the list of valid names."""
    close = difflib.get_close_matches(name, list(valid), n=1, cutoff=0.5)
    return f"; did you mean {close[0]!r}?" if close else f"; valid: {', '.join(valid)}"


def load(kind: type[Section], path: str | None, overrides: list[str] = (), seed: int | None = None):
    """The checked configuration of `kind`: file, then `--set key.path=value`, then `--seed`. Raises InputError."""
    tree = _read(_find(path)) if path else {}
    for override in overrides:
        _override(tree, override)
    if seed is not None:
        _override(tree, f"seeds=[{seed}]" if kind is PilotConfig else f"train.seed={seed}")
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        raise InputError(_one_line(kind, error, path or "defaults")) from None


class _UniqueKeys(yaml.SafeLoader):
    """SafeLoader that refuses a key given twice (YAML would keep the last one silently) and aliases (their bombs)."""

    def compose_node(self, parent, index):
        if self.check_event(yaml.AliasEvent):
            raise InputError("aliases (*name) are not taken: write the value out")
        return super().compose_node(parent, index)

    def construct_mapping(self, node, deep=False):
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise InputError(f"key {key!r} is given twice (line {node.start_mark.line + 1})")
        return super().construct_mapping(node, deep)


def _find(path: str) -> Path:
    """The file itself, or the one of that name that comes with the kit ("gpu-8gb")."""
    if Path(path).is_file():
        return Path(path)
    shipped = {p.stem: p for p in (Path(__file__).parent / "configs").glob("*.yaml")}
    if path in shipped:
        return shipped[path]
    files = [*map(str, Path(path).parent.glob("*.y*ml")), *shipped]
    raise InputError(f"config {path}: no such file{nearest(path, files)}")


def _read(path: Path) -> dict:
    if path.stat().st_size > MAX_FILE_BYTES:
        raise InputError(f"config {path}: larger than {MAX_FILE_BYTES} bytes: that is not a configuration")
    try:
        tree = yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeys)  # noqa: S506 (a SafeLoader)
    except InputError as error:
        raise InputError(f"config {path}: {error}") from None
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise InputError(f"config {path}: not YAML: {' '.join(str(error).split())[:200]}") from None
    if tree is not None and not isinstance(tree, dict):
        raise InputError(f"config {path}: must hold keys and values, holds a {type(tree).__name__}")
    return tree or {}


def _override(tree: dict, override: str) -> None:
    key, equals, value = override.partition("=")
    if not equals or not all(key.split(".")):
        raise InputError(f"--set {override}: must read key.path=value, for example train.steps=20")
    *parents, last = key.split(".")
    for name in parents:
        tree = tree.setdefault(name, {})
        if not isinstance(tree, dict):
            raise InputError(f"--set {override}: {name} is not a section")
    try:
        tree[last] = yaml.load(value, Loader=_UniqueKeys)  # noqa: S506 (a SafeLoader)
    except (yaml.YAMLError, ValueError):
        raise InputError(f"--set {override}: {value!r} cannot be read as a value") from None


def _one_line(kind: type[Section], error: ValidationError, where: str) -> str:
    first = min(error.errors(), key=lambda e: e["type"] != "extra_forbidden")  # a misspelt key explains a missing one
    key = ".".join(map(str, first["loc"]))
    more = f" (and {error.error_count() - 1} more)" if error.error_count() > 1 else ""
    if kind is RunConfig and key in ("models", "arms", "seeds"):
        return f"config {where}: key {key!r} belongs to a pilot: run it with poc pilot"
    if first["type"] == "extra_forbidden":
        return (
            f"config {where}: unknown key {key!r}{nearest(str(first['loc'][-1]), _keys(kind, first['loc'][:-1]))}{more}"
        )
    message = first["msg"].removeprefix("Value error, ")
    if first["type"] == "value_error":  # our own words name key and value already
        return f"config {where}: {key + '.' if key else ''}{message}{more}"
    return f"config {where}: {key} = {first['input']!r}: {message}{more}"


def _keys(kind: type[Section], location: tuple) -> list[str]:
    """The valid keys of the section at `location`."""
    for part in location:
        if isinstance(part, int):
            continue
        annotation = kind.model_fields[part].annotation
        kind = annotation if isinstance(annotation, type) else next(iter(annotation.__args__))
    return list(kind.model_fields)
