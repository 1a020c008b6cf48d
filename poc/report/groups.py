"""Which arms belong together: those of one start model, those of one line of mixed starts, those of one label study."""

from dataclasses import dataclass
from typing import NamedTuple

from poc.report.arms import Arm, Judged
from poc.sources import MIX

LINES_PER_CHART = 8


class Mixture(NamedTuple):
    """The start (1 - share) * first + share * second."""

    first: str
    second: str
    share: float


@dataclass(frozen=True)
class Group:
    """Arms under one heading: of one start model, or with `mixed` of several mixtures of the same two models."""

    arms: tuple[Judged, ...]
    mixed: bool = False

    @property
    def first(self) -> Arm:
        return self.arms[0].arm

    @property
    def charts(self) -> list[list[Arm]]:
        """The arms of each accuracy chart: one reward mix of mixed starts, else any; few enough to tell apart."""
        drawn = [j.arm for j in self.arms if len(j.arm.curve) > 1]  # one point is no line
        parts = [[a for a in drawn if a.name == name] for name in dict.fromkeys(a.name for a in drawn)]
        return [chunk for part in (parts if self.mixed else [drawn]) for chunk in _even_chunks(part)]


@dataclass(frozen=True)
class LabelStudy:
    """Arms of one start model and one internal part of the reward, by their number of labels."""

    internal: tuple[str, ...]
    arms: tuple[Arm, ...]


def mixture(arm: Arm) -> Mixture | None:
    """What "mix:A+B@m" says; None for another model, or a share that is no number from 0 to 1."""
    found = MIX.fullmatch(arm.model)
    try:
        share = float(found[3]) if found else -1.0
    except ValueError:
        return None
    return Mixture(found[1], found[2], share) if found and 0 <= share <= 1 else None


def grouped(judged: list[Judged]) -> list[Group]:
    """All arms under their headings: base, instruct, then the others in the order they came."""
    mixed: dict[tuple, list[Judged]] = {}
    for j in judged:
        if mix := mixture(j.arm):
            mixed.setdefault((j.arm.first.source, mix.first, mix.second), []).append(j)
    several = {key: arms for key, arms in mixed.items() if len({mixture(j.arm).share for j in arms}) > 1}
    taken = {id(j) for arms in several.values() for j in arms}
    single: dict[tuple, list[Judged]] = {}
    for j in judged:
        if id(j) not in taken:
            single.setdefault(j.arm.group, []).append(j)
    order = {"base": 0, "instruct": 1}
    starts = sorted(single.values(), key=lambda arms: order.get(arms[0].arm.role, 2))
    by_share = (sorted(arms, key=lambda j: mixture(j.arm).share) for arms in several.values())
    return [Group(tuple(arms)) for arms in starts] + [Group(tuple(arms), mixed=True) for arms in by_share]


def label_studies(group: Group) -> list[LabelStudy]:
    """One for each internal part that was measured with two or more numbers of labels.

    Verifiable alone on all labels is where every such part ends: it stands in where a part has no arm of its own there.
    """
    arms = [j.arm for j in group.arms if j.arm.labels is not None and j.arm.ends] if not group.mixed else []
    ends = [a for a in arms if not a.internal and a.first.config.get("label_fraction") == 1]
    found: dict[tuple, list[Arm]] = {}
    for arm in arms:
        found.setdefault((arm.internal, _settings(arm)), []).append(arm)
    studies = [(internal, _with_end(members, ends if internal else [])) for (internal, _), members in found.items()]
    ordered = [LabelStudy(internal, tuple(sorted(s, key=lambda a: a.labels))) for internal, s in studies]
    return [study for study in ordered if len({a.labels for a in study.arms}) > 1]


def _with_end(arms: list[Arm], ends: list[Arm]) -> list[Arm]:
    known = {a.labels for a in arms}
    return arms + [end for end in ends[:1] if end.labels not in known]


def _settings(arm: Arm) -> str:
    """What else an arm's reward depends on: arms that differ here are not one line."""
    config = arm.first.config
    reward = config.get("reward") if isinstance(config.get("reward"), dict) else {}
    weights = [reward.get(name) for name in arm.internal]
    return repr([weights, *(config.get(key) for key in ("schedule", "switch", "motivation", "semantic"))])


def _even_chunks(arms: list[Arm]) -> list[list[Arm]]:
    """14 arms are 7 and 7, not 8 and 6; where one more or less does it, arms of one internal part stay together."""
    if not arms:
        return []
    number = -(-len(arms) // LINES_PER_CHART)
    even = [i * len(arms) // number for i in range(number + 1)]
    seams = [0, *(_seam(arms, cut) for cut in even[1:-1]), len(arms)]
    found = [_cut(arms, seams), _cut(arms, even)]
    return next(chunks for chunks in found if all(len(chunk) <= LINES_PER_CHART for chunk in chunks))


def _cut(arms: list[Arm], at: list[int]) -> list[list[Arm]]:
    return [arms[a:b] for a, b in zip(at, at[1:], strict=False)]


def _seam(arms: list[Arm], near: int) -> int:
    """Where the internal part changes, at most one arm away; else `near`."""
    around = (at for at in (near, near - 1, near + 1) if 0 < at < len(arms))
    return next((at for at in around if arms[at].internal != arms[at - 1].internal), near)
