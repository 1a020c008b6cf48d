"""Seeded synthetic runs, healthy and failing: what the guard is calibrated and tested on.

They are made of smooth courses and noise, not of a model: they say how often rules trip on noise of a known size and
how soon they see a departure of a known size, and nothing about which failures real runs have. The numbers were fixed
before the guard's limits, from these sources:

Noise of a step's mean. Measured on lab runs around a cubic trend (16 prompts x 8 completions): entropy 8.5 to 9.3 % and
length 2.3 to 2.6 %, white. That is noise "lab". Noise "large", as of larger models: 5 to 10 % for both, AR(1) with
coefficient 0.7. Shares (truncated, zero variance) are binomial over 128 completions and 16 groups. The canary asks the
same questions with the same random numbers each time, so its entropy is quieter: 14 lab runs stayed within 1.8 % of a
monotone course (sd 0 to 0.6 %) while each question's walked by 3 to 9 % of the mean an evaluation. Here: 1 % on all
questions, a walk of 4.5 % for each, levels spread by 31 % (measured 31 and 52 %).
Healthy kinds: flat; learning (accuracy + 0.1 to 0.3, entropy falls to half with a time constant of 30 to 60 steps,
length drifts by up to 20 % either way, more groups of zero variance, KL up to 0.1); noisy (flat, entropy and length
swing by another 15 % over 25 to 60 steps, on the canary by 4 %, twice what was measured there; twice the noise of
repetition and script).
Canary: 64 questions x 4 independent samples, log-odds of a right answer N(mu, 1.5), mean accuracy 0.3 to 0.6; every
question's log-odds make a random walk of 0.1 per evaluation, as training moves questions both ways. Wrong samples fall
on one favourite wrong answer half the time and on nine others else. (The trainer's evaluations reuse their random
draws, so real paired differences are quieter than these.)
Failures start at a step from 15 to 60 in a run that is flat or learning and are fully there after 3 to 8 steps:
    entropy_collapse   entropy x 0.02 to 0.06       entropy_explosion  x 4 to 10 (trl #6407: 0.3 to over 2 nats)
    length_collapse    length x 0.1 to 0.3          length_runaway     x 3 to 6, cut at 1.75 to 6 times the usual length
    repetition         share 0.4 to 0.9             truncation         share 0.5 to 1
    kl                 2 to 10 nats per token, exponentially; half the runs measure it at the canary only
    zero_variance      share 0.95 to 1              charset_drift      share 0.2 to 0.8
    canary_drop        accuracy to 0.2 to 0.6 of what it was (lab collapses: 0.29 to 0.58) while the reward rises
    agreement_drop     accuracy and agreement rise, then fall over 20 to 40 steps to 0.4 to 0.8 of what they were
    past_peak          accuracy falls likewise, agreement does not move, entropy rises by 10 to 40 % (lab: 4 to 50 %)
The last two are slow because the runs that they are about are. In the first right answers turn into scattered ones, in
the second into one favourite wrong answer (canary_drop: half each).
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from poc import guard
from poc.config import Guard
from poc.records import CanaryRecord, StepRecord

STEPS, EVERY, QUESTIONS, SAMPLES = 100, 5, 64, 4
HEALTHY = ("flat", "learning", "noisy")
FAILURES = (
    "entropy_collapse", "entropy_explosion", "length_collapse", "length_runaway", "repetition", "truncation", "kl",
    "zero_variance", "canary_drop", "charset_drift", "agreement_drop", "past_peak",
)  # fmt: skip
# The rules that count as having caught a failure, where it is not the one of its name alone.
CAUGHT_BY = {name: {name} for name in FAILURES} | {"length_runaway": {"length_runaway", "truncation"}}
WITHIN = 10  # steps, the first one that departs included
SLOW = ("agreement_drop", "past_peak")


class Trace(NamedTuple):
    """A run as the guard sees it; `onset` is the first step that departs, None in a healthy one."""

    steps: list[StepRecord]
    canaries: list[CanaryRecord]  # of steps 0, 5, 10, ...
    accuracy: list[float]  # the expected canary accuracy at those steps, which no guard sees
    onset: int | None


def replay(trace: Trace, options: Guard) -> tuple[guard.Memory, list[guard.Decision]]:
    """The guard's memory after the whole trace, and every decision; nothing is stopped."""
    looks, decisions = {look.step: look for look in trace.canaries}, []
    memory, _ = guard.after_canary(guard.start(label_free=True), looks[0], options)
    for record in trace.steps:
        memory, found = guard.after_step(memory, record, options)
        decisions += found
        if look := looks.get(record.step):
            memory, found = guard.after_canary(memory, look, options)
            decisions += found
    return memory, decisions


def caught(trace: Trace, decisions: list[guard.Decision], failure: str, within: int = WITHIN) -> bool:
    """Whether a rule of the right kind acted, a warning included, in time and not before the failure began."""
    times = [d.step - trace.onset for d in decisions if d.rule in CAUGHT_BY[failure]]
    return any(0 <= time < within for time in times)


def stopped(decisions: list[guard.Decision], before: float = np.inf) -> bool:
    return any(d.action != "warn" and d.step < before for d in decisions)


@dataclass
class Courses:
    """What is expected of every step 0..STEPS, before noise; a failure bends them."""

    entropy: np.ndarray
    steady: np.ndarray  # the same on the canary's fixed questions, as a multiple
    length: np.ndarray
    repetition: np.ndarray
    foreign: np.ndarray
    truncated: np.ndarray
    zero_variance: np.ndarray
    kl: np.ndarray
    reward: np.ndarray
    odds: np.ndarray  # [steps, questions] log-odds of a right answer
    favourite: np.ndarray  # share of the wrong samples that fall on one answer
    limit: float = np.inf  # tokens


def healthy(seed: int, kind: str | None = None) -> Trace:
    """Kind and noise level by the seed: each of the six combinations in turn."""
    rng = np.random.default_rng((seed, 0))
    kind = kind or HEALTHY[seed % 3]
    return _drawn(_courses(rng, kind), rng, "lab" if seed // 3 % 2 else "large", kind == "noisy", None)


def failing(failure: str, seed: int) -> Trace:
    rng = np.random.default_rng((seed, 1 + FAILURES.index(failure)))
    courses = _courses(rng, ("flat", "learning")[seed % 2] if failure not in SLOW else "learning")
    onset = int(rng.integers(15, 61))
    _BENDS[failure](courses, rng, onset)
    return _drawn(courses, rng, "lab" if seed // 2 % 2 else "large", False, onset)


def _courses(rng: np.random.Generator, kind: str) -> Courses:
    t, gain = np.arange(STEPS + 1), float(kind == "learning")
    learned = gain * (1 - np.exp(-t / rng.uniform(30, 60)))
    swing = 0.15 * np.sin(2 * np.pi * (t / rng.uniform(25, 60) + rng.uniform())) if kind == "noisy" else 0.0
    odds = rng.normal(_log_odds(rng.uniform(0.3, 0.6)) * 1.4, 1.5, QUESTIONS) + np.cumsum(
        np.where(t[:, None] % EVERY, 0.0, rng.normal(0, 0.1, (STEPS + 1, QUESTIONS))), axis=0
    )
    return Courses(
        entropy=rng.choice([0.12, 0.3, 0.8]) * (1 - 0.5 * learned) * (1 + swing),
        steady=np.ones(STEPS + 1) * (1 + swing * 4 / 15) / (1 + swing),
        length=rng.choice([18, 150, 600]) * (1 + gain * rng.uniform(-0.2, 0.2) * t / STEPS) * (1 + swing),
        repetition=np.full(STEPS + 1, rng.uniform(0, 0.04)),
        foreign=np.full(STEPS + 1, rng.uniform(0, 0.01)),
        truncated=np.full(STEPS + 1, rng.choice([0.0, 0.02, 0.15])),
        zero_variance=rng.uniform(0.02, 0.4) + 0.3 * learned,
        kl=0.1 * learned + 0.01 * (t > 0),
        reward=1 + 0.3 * learned,
        odds=odds + learned[:, None] * rng.uniform(0.6, 1.8),
        favourite=np.full(STEPS + 1, 0.5),
    )


def _log_odds(p: float) -> float:
    return float(np.log(p / (1 - p)))


def _ramp(rng: np.random.Generator, onset: int, shortest: int = 3, longest: int = 8) -> np.ndarray:
    """0 before the onset, 1 when the failure is fully there."""
    return np.clip((np.arange(STEPS + 1) - onset + 1) / rng.integers(shortest, longest + 1), 0, 1)


def _scaled(name: str, low: float, high: float):
    def bend(courses: Courses, rng: np.random.Generator, onset: int) -> None:
        setattr(courses, name, getattr(courses, name) * rng.uniform(low, high) ** _ramp(rng, onset))

    return bend


def _raised(name: str, low: float, high: float):
    def bend(courses: Courses, rng: np.random.Generator, onset: int) -> None:
        ramp, before = _ramp(rng, onset), getattr(courses, name)
        setattr(courses, name, before + ramp * (rng.uniform(low, high) - before))

    return bend


def _runaway(courses: Courses, rng: np.random.Generator, onset: int) -> None:
    courses.limit = courses.length[0] * rng.uniform(1.75, 6)
    grown = courses.length * rng.uniform(3, 6) ** _ramp(rng, onset)
    # completions' lengths spread by about 40 %: that share of them hits the limit
    courses.truncated = np.maximum(courses.truncated, 1 / (1 + np.exp(-4 * np.log(grown / courses.limit))))
    courses.length = np.minimum(grown, courses.limit)


def _kl(courses: Courses, rng: np.random.Generator, onset: int) -> None:
    courses.kl = courses.kl * (rng.uniform(2, 10) / courses.kl.clip(0.01)) ** _ramp(rng, onset)


def _forget(courses: Courses, share: float, ramp: np.ndarray, favourite: float) -> None:
    """Every question's chance of a right answer goes to that share of itself."""
    p = 1 / (1 + np.exp(-courses.odds))
    p = p * (1 - ramp[:, None] * (1 - share))
    courses.odds = np.log(p / (1 - p))
    courses.favourite = courses.favourite + ramp * (favourite - courses.favourite)


def _hacked(courses: Courses, rng: np.random.Generator, onset: int) -> None:
    ramp = _ramp(rng, onset)
    _forget(courses, rng.uniform(0.2, 0.6), ramp, favourite=0.5)
    courses.reward = courses.reward + 0.3 * ramp


def _scattered(courses: Courses, rng: np.random.Generator, onset: int) -> None:
    _forget(courses, rng.uniform(0.4, 0.8), _ramp(rng, onset, 20, 40), favourite=0.2)


def _turned(courses: Courses, rng: np.random.Generator, onset: int) -> None:
    ramp = _ramp(rng, onset, 20, 40)
    _forget(courses, rng.uniform(0.4, 0.8), ramp, favourite=0.9)
    courses.entropy = courses.entropy[np.minimum(np.arange(STEPS + 1), onset)] * rng.uniform(1.1, 1.4) ** ramp


_BENDS = {
    "entropy_collapse": _scaled("entropy", 0.02, 0.06),
    "entropy_explosion": _scaled("entropy", 4, 10),
    "length_collapse": _scaled("length", 0.1, 0.3),
    "length_runaway": _runaway,
    "repetition": _raised("repetition", 0.4, 0.9),
    "truncation": _raised("truncated", 0.5, 1.0),
    "kl": _kl,
    "zero_variance": _raised("zero_variance", 0.95, 1.0),
    "canary_drop": _hacked,
    "charset_drift": _raised("foreign", 0.2, 0.8),
    "agreement_drop": _scattered,
    "past_peak": _turned,
}


def _drawn(c: Courses, rng: np.random.Generator, noise: str, rough: bool, onset: int | None) -> Trace:
    entropy, length = _noise(rng, noise, 0.09), _noise(rng, noise, 0.024)
    length, wild, kl_in_steps = np.minimum(c.length * length, c.limit), 1 + rough, rng.random() < 0.5
    steps, canaries = [], []
    levels, walk = np.exp(rng.normal(0, 0.31, QUESTIONS)), np.zeros(QUESTIONS)
    for t in range(STEPS + 1):
        kl = float(c.kl[t] * np.exp(rng.normal(0, 0.3)))
        shares = {
            "truncated": rng.binomial(128, c.truncated[t]) / 128,
            "zero_variance": rng.binomial(16, c.zero_variance[t]) / 16,
            "repetition": float(c.repetition[t] * np.exp(rng.normal(0, 0.3 * wild))),
            "foreign": float(c.foreign[t] * np.exp(rng.normal(0, 0.5 * wild))),
        }
        reward = float(c.reward[t] + rng.normal(0, 0.05))
        if t:
            steps.append(
                step(t, float(c.entropy[t] * entropy[t]), float(length[t]), kl * kl_in_steps, reward, **shares)
            )
        if t % EVERY == 0:
            entropies = c.entropy[t] * c.steady[t] * rng.normal(1, 0.01) * levels * np.exp(walk)
            walk = walk + rng.normal(0, 0.045, QUESTIONS)
            seen = {"entropy": float(entropies.mean()), "length": float(c.length[t])}
            seen["entropies"] = tuple(entropies.tolist())
            answers = _answers(c.odds[t], c.favourite[t], rng)
            canaries.append(CanaryRecord(t, *answers, **seen, truncated=float(c.truncated[t]), kl=kl))
    return Trace(steps, canaries, [float((1 / (1 + np.exp(-c.odds[x.step]))).mean()) for x in canaries], onset)


def _noise(rng: np.random.Generator, level: str, lab: float) -> np.ndarray:
    """Factors around 1."""
    if level == "lab":
        return np.exp(rng.normal(0, lab, STEPS + 1))
    sd, x = rng.uniform(0.05, 0.1), rng.normal(0, 1, STEPS + 1)
    for t in range(1, STEPS + 1):
        x[t] = 0.7 * x[t - 1] + (1 - 0.7**2) ** 0.5 * x[t]
    return np.exp(sd * x)


def _answers(odds: np.ndarray, favourite: float, rng: np.random.Generator) -> tuple[tuple[float, ...], ...]:
    """Share of right samples and share of the most frequent answer, of every question."""
    correct, agreement = [], []
    for p in 1 / (1 + np.exp(-odds)):
        counts = rng.multinomial(SAMPLES, [p, (1 - p) * favourite, *[(1 - p) * (1 - favourite) / 9] * 9])
        correct.append(float(counts[0] / SAMPLES))
        agreement.append(float(counts.max() / SAMPLES))
    return tuple(correct), tuple(agreement)


def step(number: int, entropy: float | None = 0.5, length: float = 100.0, kl: float | None = 0.0,
         reward: float | None = 1.0, **others) -> StepRecord:  # fmt: skip
    """A step in which nothing happens but what is said."""
    usual = dict(
        rewards={"x": reward}, reward_std={"x": 0.1}, weights={"x": 1.0}, zero_variance=0.1, logp=None,
        self_certainty=None, truncated=0.0, repetition=0.0, foreign=0.0, accuracy=None, labelled=0.0, agreement=0.5,
        semantic_entropy=1.0, dropped=None, loss=0.0, grad_norm=1.0, clip_fraction=0.0, learning_rate=1e-5, tokens=1000,
    )  # fmt: skip
    return StepRecord(step=number, entropy=entropy, length=length, kl=kl, reward=reward, **usual | others)
