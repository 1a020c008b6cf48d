"""The records that flow through a run: every stage is a function from record to record.

Plain frozen data: no model, no tensor library, no file. Units: log-probabilities, entropies and self-certainties in
nats, times in seconds, lengths in tokens.
"""

from dataclasses import dataclass, field
from typing import Literal

Messages = tuple[dict[str, str], ...]  # ({"role": "user", "content": "..."}, ...)
Split = Literal["train", "holdout", "canary"]
Status = Literal["correct", "wrong", "unparsable", "timeout", "error"]


class InputError(ValueError):
    """What the user gave is wrong: one line that says what, where and the way out. The command line exits with 2."""


class RunError(RuntimeError):
    """A run cannot go on, in one line; the other runs of a pilot can."""


class NonFinite(RunError):
    """A number that is NaN or infinite was found in time: the weights are as they were before the step."""


@dataclass(frozen=True, slots=True)
class Example:
    """One question. `answer` is the gold: hidden from every label-free reward, None where nobody knows it.

    `check`: what the verifier needs beside the gold, as JSON (code: the hidden tests; science: the tolerance), or "".
    It is as hidden as the gold.
    """

    id: str
    question: str | Messages
    answer: str | None
    domain: str
    level: int = 0
    check: str = ""

    @property
    def text(self) -> str:
        """The question as one text, also where it is a list of chat messages."""
        if isinstance(self.question, str):
            return self.question
        return "\n".join(f"{message['role']}: {message['content']}" for message in self.question)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a verifier says of one completion.

    `status` judges the marked answer; `formatted`: the answer is marked, parsable and last; `correct_anyhow`: right
    regardless of format (the last answer-like thing in the text equals the gold). `answer` is what was read, or None.
    timeout: judging it took too long, which is the completion's fault; error: the verifier failed, which is not.
    """

    status: Status
    formatted: bool
    correct_anyhow: bool
    answer: str | None = None

    @property
    def correct(self) -> bool:
        return self.status == "correct"


@dataclass(frozen=True, slots=True)
class Episode:
    """One sampled completion of n tokens, the end token included, with the statistics of the distribution that drew it.

    `finished` is False when the length limit cut the completion off. `logp`, `entropy`, `self_certainty`: n floats
    each, of the tempered, untruncated distribution. `answer` is what the text marks as its answer, read without the
    gold (None: unparsable); `formatted`: it is marked, parsable and last.
    `verdict` is None where the example has no gold answer.
    """

    token_ids: tuple[int, ...]
    text: str
    finished: bool
    logp: tuple[float, ...]
    entropy: tuple[float, ...]
    self_certainty: tuple[float, ...]
    verdict: Verdict | None = None
    answer: str | None = None
    formatted: bool = False

    def __len__(self) -> int:
        return len(self.token_ids)


@dataclass(frozen=True, slots=True)
class Group:
    """The G completions of one prompt: the unit that rewards see and advantages are normalised over.

    `seed` identifies the draw (run seed, step, prompt), so that a reward that needs chance stays reproducible.
    `meanings`: one label per episode, equal labels for answers that mean the same, None for no answer (see
    poc.rewards.meanings); empty until that stage has run.
    """

    example: Example
    prompt_ids: tuple[int, ...]
    episodes: tuple[Episode, ...]
    seed: int = 0
    meanings: tuple[int | None, ...] = ()


@dataclass(frozen=True, slots=True)
class StepRecord:
    """One optimizer step, as a line of steps.jsonl. Means are over the step's completions unless said otherwise.

    A value that is not finite is None here, never another number; `skipped` then says what it was and that the weights
    were left as they are.
    """

    step: int
    reward: float | None  # weighted sum of the raw parts, before normalisation
    rewards: dict[
        str, float | None
    ]  # mean of each raw part over the prompts it speaks on; None where it speaks on none
    reward_std: dict[str, float | None]  # mean within-group standard deviation of each part, over the same
    weights: dict[str, float]  # weight of each part in this step, after schedule and switch
    zero_variance: float | None  # share of groups whose advantages are all 0
    entropy: float | None  # mean per sampled token
    logp: float | None  # mean per sampled token
    self_certainty: float | None  # mean per sampled token
    length: float
    truncated: float  # share of completions cut off by the length limit
    repetition: float  # mean share of a completion's tokens that lie in a repeated phrase (poc.signals)
    foreign: float  # share of the letters in scripts that the step's questions do not use (poc.signals)
    accuracy: float | None  # share correct on the labelled training prompts, for the log only; None without labels
    labelled: float  # share of prompts with a gold answer that a reward may use
    agreement: float  # mean share of the most frequent answer within a group; unparsable answers agree with nothing
    semantic_entropy: float  # mean over groups of the entropy of the answers' meanings, nats
    dropped: float | None  # share of semantic_entropy's prompts outside its thresholds; None where it is not asked
    loss: float | None
    grad_norm: float | None  # before clipping
    clip_fraction: float | None  # share of tokens whose ratio was clipped
    kl: float | None  # mean k3 estimate against the start model; 0.0 when kl is off
    learning_rate: float
    tokens: int  # completion tokens trained on in this step
    skipped: str | None = None  # why the optimizer did not step
    micro_batch: int = 0  # completions per forward and backward pass, after what running out of memory left of it
    timing: dict[str, float] = field(default_factory=dict)  # seconds: rollout (0 where an earlier one serves), ...


@dataclass(frozen=True, slots=True)
class CanaryRecord:
    """The canary questions at one step: what the guard looks at beside the steps. Per-question values in their order.

    The canary is a labelled split of its own: never trained on, never the hold-out, seen by no reward.
    """

    step: int
    correct: tuple[float, ...]  # share of right samples of each labelled question; empty without labels
    agreement: tuple[float, ...]  # share of the most frequent answer among each question's samples; uses no label
    entropy: float  # nats per sampled token
    length: float  # tokens
    truncated: float  # share of samples cut off
    kl: float | None = None  # mean k3 estimate against the start model, nats per sampled token
    entropies: tuple[float, ...] = ()  # mean entropy of each question's sampled tokens, nats; uses no label
