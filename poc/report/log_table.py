"""The table of a log entry, in Markdown: one row for each arm and each of its views, and how to get it again.

Nothing a model wrote is in it; names out of files are made visible, clipped and escaped.
"""

import re
from collections.abc import Callable, Iterable

from poc.report import figures, words
from poc.report.arms import Arm, Judged
from poc.report.language import load
from poc.report.read import Run
from poc.report.transfer import VIEW, Matrix, matrices
from poc.report.words import unique
from poc.text import clip, visible

HEAD = (
    "arm", "seeds", "start → end, %", "change, points (95 % interval over questions)", "change by seed, min to max",
    "best evaluated step*: step, accuracy %, change (interval)", "entropy start → end, nats", "verdict",
)  # fmt: skip
FOOTNOTE = "\\* The best step is picked on the hold-out it is measured on, so it flatters."
EN = load("en")  # a log is English, whatever language the page has
_MARKS = re.compile(r"[\\`*\[\]<>|&~$]")


def markdown(judged: list[Judged]) -> str:
    """The table with its footnote and what it takes to repeat it."""
    found = [_table(HEAD, [row for j in judged for row in _rows(j)]), "", FOOTNOTE]
    found += [text for matrix in matrices(judged) for text in ("", carried_over(matrix))]
    return "\n".join([*found, "", *(f"- {line}" for line in _origin(judged))]) + "\n"


def carried_over(matrix: Matrix) -> str:
    """The matrix of one start model: change in points on each domain, with its interval."""
    head = (f"{escaped(clip(matrix.rows[0].arm.model, 80))}, trained on", *map(escaped, matrix.columns))
    before = [matrix.before(i) for i in range(len(matrix.columns))]
    start = ("right before training", *(words.accuracy(arm.ends[0], EN) if arm else "–" for arm in before))
    rows = [
        (escaped(figures.trained_name(row, EN)), *(words.change(c.change, EN) if c else "–" for c in row.cells))
        for row in matrix.rows
    ]
    return _table(head, [start, *rows])


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ("---",) * len(head), *rows])


def _rows(j: Judged) -> list[tuple[str, ...]]:
    arm = j.arm
    remarks = f" ({', '.join(j.verdict.remarks)})" if j.verdict.remarks else ""
    views = [
        (f"{clip(visible(arm.label), 80)}, {clip(visible(name), 60)}", arm.view(name))
        for name in arm.view_names
        if not name.startswith(VIEW)
    ]  # those are in the matrix
    return [
        _row(clip(visible(arm.label), 80), arm, EN(f"badge.{j.verdict.word}") + remarks),
        *(_row(name, view, "–") for name, view in views),
    ]


def _row(name: str, arm: Arm, verdict: str) -> tuple[str, ...]:
    best = arm.best
    flat = f"{best.step}, {_share(best.accuracy.value)}, {words.change(best.change, EN)}" if best else "–"
    span = f"{_share(arm.ends[0].value)} → {_share(arm.ends[1].value)}" if arm.ends else "–"
    # Seeds that were measured; all of them where none was.
    seeds = len(arm.measured) or len(arm.runs)
    return (escaped(name), str(seeds), span, words.change(arm.change, EN), _by_seed(arm), flat, _entropy(arm), verdict)


def escaped(text: str) -> str:
    """One line of Markdown that shows `text` itself: no cell border, link, code or HTML comes of it."""
    return _MARKS.sub(lambda mark: "\\" + mark[0], " ".join(visible(text).split()))


def _by_seed(arm: Arm) -> str:
    changes = [interval.value for _, interval in arm.per_seed]
    return f"{words.signed(min(changes))} to {words.signed(max(changes))}" if len(changes) > 1 else "–"


def _entropy(arm: Arm) -> str:
    first, last = arm.metric("entropy", 0), arm.metric("entropy", -1)
    return f"{words.number(first, 3)} → {words.number(last, 3)}" if arm.ends and first is not None else "–"


def _share(value: float) -> str:
    return f"{100 * value:.1f}"


def _origin(judged: list[Judged]) -> list[str]:
    runs = [run for j in judged for run in j.arm.runs]
    known = [run for run in runs if run.environment]
    seconds = [s for j in judged if (s := j.arm.seconds()) is not None]
    evaluations = [e for run in runs for e in run.evaluations]
    lines = {
        "Kit": _values(known, lambda r: words.kit(r.environment, EN)),
        "Command": _values(known, lambda r: str(r.environment.get("command")), _code),
        "Hardware": _values(known, lambda r: words.hardware(r, EN)),
        "Seeds": _values(runs, lambda r: str(r.seed)),
        "Hold-out": f"{_range(len(e.prompts) for e in evaluations)} questions, "
        f"{_range(e.samples for e in evaluations)} samples each at temperature 1",
        "Time": f"{words.duration(sum(seconds) if seconds else None, EN)} in all",
        "Not as planned": _values([r for r in runs if r.status != "done"], lambda r: f"{r.name} {r.status}"),
    }
    return [f"{name}: {value}" for name, value in lines.items() if value]


def _code(text: str) -> str:
    """A code span, to be copied as it stands; a backtick would end it."""
    return f"`{' '.join(visible(text).split()).replace('`', chr(39)) or ' '}`"


def _values(runs: list[Run], value: Callable[[Run], str], show: Callable[[str], str] = escaped) -> str:
    return "; ".join(show(clip(v, 600)) for v in unique(map(value, runs))[:40])


def _range(values: Iterable[int]) -> str:
    found = sorted(set(values))
    return "no" if not found else str(found[0]) if len(found) == 1 else f"{found[0]} to {found[-1]}"
