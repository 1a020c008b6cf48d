"""`poc plan`: what a run or a pilot would do, and, with a probe, what the start models do before anything is trained.

The probe samples groups for a few training questions and measures what decides whether a model can learn from its own
opinion: how undecided it is, how far its answers agree, how often they all agree or all differ. Where the papers say
that internal feedback will not help, it warns, with the number measured and the threshold's source. A warning is no
verdict: the thresholds come from other models and tasks. Nothing is trained and nothing is written.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from random import Random
from statistics import fmean

from poc import statistics
from poc.config import RunConfig
from poc.records import Example, Group
from poc.rewards import semantic
from poc.rewards.meanings import Clustering, with_meanings
from poc.statistics import Interval

PROMPTS = 32
LOW_ENTROPY = 0.5  # nats per token: RLIF's mixed starts gained at 0.71 and 0.81, and did not at 0.44 and 0.38
HALF = 0.5  # of prompts or completions: ours


@dataclass(frozen=True, slots=True)
class Probe:
    """Measurements of one start model; shares are 0 to 1, intervals over prompts.

    `accuracy` and `majority`: share of right completions, and of groups whose most frequent answer is right, over the
    `labelled` prompts; None where there are none. `lengths`: tokens of each completion; `score`: seconds to grade one.
    """

    prompts: int
    group_size: int
    chat: bool
    entropy: Interval
    length: Interval
    truncated: float
    unreadable: float
    agreement: Interval
    all_equal: float
    all_different: float
    dropped: float
    labelled: int
    accuracy: float | None
    majority: float | None
    lengths: tuple[int, ...]
    score: float


def probe(
    policy, examples: Sequence[Example], config: RunConfig, *, encode: Callable[[Example], list[int]],
    cluster: Clustering, chat: bool,
) -> Probe:  # fmt: skip
    """Sample the policy on at most 32 of `examples` as training would."""
    from poc.calibrate import GRADED, grading
    from poc.rollout import rollout

    options = config.train
    chosen = Random(f"probe/{options.seed}").sample(list(examples), min(PROMPTS, len(examples)))
    drawn = rollout(
        policy, chosen, [encode(e) for e in chosen], group_size=options.group_size,
        max_new_tokens=options.max_new_tokens, temperature=options.temperature, seed=options.seed,
        max_rows=options.sample_rows,
    )  # fmt: skip
    score = grading([(group.example, episode.text) for group in drawn for episode in group.episodes][:GRADED])
    return summarise([with_meanings(group, cluster) for group in drawn], config, chat, score)


def summarise(groups: Sequence[Group], config: RunConfig, chat: bool, score: float) -> Probe:
    """The probe of groups that have their meanings."""
    episodes = [e for g in groups for e in g.episodes]
    known = [g for g in groups if g.example.answer is not None]
    limits = semantic.Limits(config.semantic.low, config.semantic.high, config.semantic.unit)
    distinct = [len({x for x in g.meanings if x is not None}) + g.meanings.count(None) for g in groups]
    return Probe(
        prompts=len(groups),
        group_size=len(groups[0].episodes),
        chat=chat,
        entropy=statistics.bootstrap_interval([fmean(x for e in g.episodes for x in e.entropy) for g in groups]),
        length=statistics.bootstrap_interval([fmean(map(len, g.episodes)) for g in groups]),
        truncated=fmean(not e.finished for e in episodes),
        unreadable=fmean(x is None for g in groups for x in g.meanings),
        agreement=statistics.bootstrap_interval([semantic.agreement(g) for g in groups]),
        all_equal=fmean(n == 1 for n in distinct),
        all_different=fmean(n == len(g.episodes) for n, g in zip(distinct, groups, strict=True)),
        dropped=fmean(not semantic.kept(g, limits) for g in groups),
        labelled=len(known),
        accuracy=fmean(e.verdict.correct for g in known for e in g.episodes) if known else None,
        majority=fmean(map(_majority_right, known)) if known else None,
        lengths=tuple(map(len, episodes)),
        score=score,
    )


def _majority_right(group: Group) -> float:
    """Share of right completions among those of the largest cluster or clusters; 0 if nothing can be read."""
    votes = semantic.majority_vote(group)
    right = [e.verdict.correct for e, vote in zip(group.episodes, votes, strict=True) if vote]
    return fmean(right) if right else 0.0


def warnings(found: Probe) -> list[str]:
    """One sentence for each reason why feedback without labels may not help here."""
    percent, readable = "{:.0%}".format, found.unreadable <= HALF
    texts = [
        (found.entropy.value < LOW_ENTROPY, f"policy entropy {found.entropy.value:.3f} nats per token is under "
         f"{LOW_ENTROPY}: RLIF (arXiv 2506.17219) saw internal feedback help from starts at 0.71 or more and not at "
         "0.44 or less (Qwen2.5-3B on MATH, weights mixed with its instruct model's; 0.5 lies between). With other "
         "tokens per word or shorter answers the scale differs"),
        (found.chat, "it is asked in a chat format, so it was probably tuned to follow instructions: RLIF saw such "
         "models gain little and then fall (Qwen2.5-3B-Instruct on MATH500: 0.636 before, 0.496 after 80 steps)"),
        (found.all_equal > HALF, f"in {percent(found.all_equal)} of the groups all answers agree: EMPO (arXiv "
         "2504.05812, eq. 7) drops such prompts, agreement can teach nothing there; take harder questions"),
        (found.all_different > HALF and readable, f"in {percent(found.all_different)} of the groups no two answers "
         "agree: EMPO drops such prompts as unreliable; take easier questions, or larger groups"),
        (found.majority is not None and found.majority < HALF and readable, "the most frequent answer is right in only "
         f"{percent(found.majority or 0)} of {found.labelled} labelled groups: in the others rewards for "
         "agreement pay a wrong answer; watch the accuracy (the limit of one half is ours)"),
        (found.truncated > HALF / 2, f"{percent(found.truncated)} of the completions are cut off: raise "
         "train.max_new_tokens (the limit of a quarter is ours)"),
        (not readable, f"{percent(found.unreadable)} of the completions hold no answer that can be read: "
         "say in prompt.instruction how to mark it (the limit of one half is ours)"),
    ]  # fmt: skip
    return [text for holds, text in texts if holds]


def lines(found: Probe) -> list[tuple[str, str]]:
    """(what, how much) for a person."""

    def span(i: Interval, digits: int) -> str:
        ends = "" if i.low is None else f" ({i.low:.{digits}f} to {i.high:.{digits}f})"
        return f"{i.value:.{digits}f}{ends}"

    shown = [
        ("policy entropy, nats per token", span(found.entropy, 3)),
        ("length, tokens", span(found.length, 1)),
        ("cut off", f"{found.truncated:.1%}"),
        ("without a readable answer", f"{found.unreadable:.1%}"),
        ("agreement within a group", span(found.agreement, 2)),
        ("groups whose answers all agree", f"{found.all_equal:.1%}"),
        ("groups whose answers all differ", f"{found.all_different:.1%}"),
        ("prompts semantic_entropy would drop", f"{found.dropped:.1%}"),
    ]
    if found.accuracy is None:
        return shown
    return [
        *shown,
        (f"right, of {found.labelled} labelled prompts", f"{found.accuracy:.1%}"),
        ("most frequent answer right", f"{found.majority:.1%}"),
    ]
