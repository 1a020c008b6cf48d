"""What `poc equivalence` measured, to look at: a table in the terminal and one offline page with a curve per pair.

It reads the config.yaml and equivalence.jsonl of a run folder and measures nothing.
"""

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import fmean

import yaml
from markupsafe import Markup
from rich.table import Table

from poc.display import console
from poc.equivalence import FILE, NAMES, PAIRS
from poc.report.charts import CONTROL, STYLES, Line, curves
from poc.statistics import Interval
from poc.text import clip, visible

INTERNAL = {"self_certainty": "certainty", "token_entropy": "token", "trajectory_entropy": "trajectory"}
RANK, COSINE = "rank correlation", "cosine of gradients"
PAGE = Markup("""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; style-src 'unsafe-inline'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>How alike the rewards are</title>
<style>
{css}
</style>
</head>
<body>
<main>
<h1>How alike the rewards are</h1>
<p class="note">{facts}</p>
<p class="note">Rank correlation: do two rewards put the completions of a question in the same order? Spearman's, within
groups, averaged over the groups where both rewards differ between completions; the band is its 95 % interval over
groups. Cosine of gradients: would two rewards move the weights the same way, after the same completions? 1: alike;
0: unrelated; −1: opposite. A step without a point: not defined there.</p>
<p class="caution">The cosine of a single step is noisy: few completions share directions by chance. The last section
compares with a random reward, a coin: read a cosine as a likeness only where it stays clear of what the coin shows.</p>
{sections}
<h2>Policy entropy</h2>
<div class="charts"><figure>{entropy}</figure></div>
<h2>Means over the measured steps</h2>
<div class="scroll">{table}</div>
</main>
</body>
</html>
""")
SECTION = Markup('<h2>{title}</h2>\n<div class="charts"><figure>{rank}</figure><figure>{cosine}</figure></div>\n')
HEADER = ("pair", f"{RANK}, mean (min to max of steps)", "groups", f"{COSINE}, mean (min to max of steps)")


def show(folder: Path) -> None:
    """Print the table of a run folder and write its equivalence.html; nothing where no step was measured."""
    if not (folder / FILE).is_file():
        return
    lines = [json.loads(line) for line in (folder / FILE).read_text(encoding="utf-8").splitlines()]
    path, staged = folder / "equivalence.html", folder / ".equivalence.html.staged"
    staged.write_text(page(lines, yaml.safe_load((folder / "config.yaml").read_text())), encoding="utf-8")
    os.replace(staged, path)
    _print(rows(lines))
    print(f"equivalence of rewards over {len(lines)} measured steps: {path}")


def rows(lines: Sequence[dict]) -> list[tuple[str, str, str, str]]:
    """One row a pair: both measures over the steps where they are defined, and the groups counted, all as text."""
    table = []
    for pair in map("/".join, PAIRS):
        rank = _span(line["rank"][pair]["value"] for line in lines)
        counted, all_ = sum(line["rank"][pair]["groups"] for line in lines), sum(line["groups"] for line in lines)
        table.append((pair, rank, f"{counted}/{all_}", _span(line["cosine"][pair] for line in lines)))
    return table


def _span(values) -> str:
    known = [value for value in values if value is not None]
    return f"{fmean(known):+.2f} ({min(known):+.2f} to {max(known):+.2f})" if known else "-"


def _print(table: list[tuple[str, str, str, str]]) -> None:
    """A table in a terminal, plain lines elsewhere."""
    if console.is_terminal:
        shown = Table(*HEADER)
        for row in table:
            shown.add_row(*row)
        console.print(shown)
        return
    for pair, rank, groups, cosine in table:
        print(f"{pair}: {RANK} {rank} in {groups} groups, {COSINE} {cosine}")


def page(lines: Sequence[dict], config: dict) -> str:
    """The page as HTML, without script or address; `lines` of equivalence.jsonl, at least one."""
    first, last = lines[0], lines[-1]
    facts = (
        f"{visible(clip(str(config['model']), 120))}, trained with {visible(clip(_mix(config['reward']), 200))}: "
        f"{len(lines)} measured steps, the last at step {last['step']}; policy entropy {first['entropy']:.3f} → "
        f"{last['entropy']:.3f} nats per token."
    )
    return PAGE.format(
        css=Markup((Path(__file__).parent / "report" / "page.css").read_text()),
        facts=facts,
        sections=Markup("").join(map(lambda s: _section(lines, *s), _sections())),
        entropy=_chart("entropy", [_line("entropy", 0, lines, lambda line: Interval(line["entropy"], None, None, 0))],
                       "Policy entropy over training", "nats per token"),
        table=_table(rows(lines)),
    )  # fmt: skip


def _mix(reward: dict[str, float]) -> str:
    return " + ".join(f"{weight:g} {name}" for name, weight in reward.items())


def _sections() -> list[tuple[str, dict[str, str]]]:
    """(title, {pair: the name of its curve}): the internal rewards among themselves, then each other one's pairs."""
    among = {f"{a}/{b}": f"{INTERNAL[a]} / {INTERNAL[b]}" for a, b in PAIRS if a in INTERNAL and b in INTERNAL}
    against = [(late, {f"{a}/{b}": _words(a) for a, b in PAIRS if b == late}) for late in NAMES[len(INTERNAL) :]]
    return [("Internal rewards among themselves", among), *((f"Against {_words(b)}", pairs) for b, pairs in against)]


def _section(lines: Sequence[dict], title: str, pairs: dict[str, str]) -> Markup:
    rank = lambda pair: lambda line: Interval(*(line["rank"][pair][k] for k in ("value", "low", "high", "groups")))  # noqa: E731
    cosine = lambda pair: lambda line: Interval(line["cosine"][pair], None, None, 0)  # noqa: E731
    charts = {
        name: _chart(
            f"{name}-{'-'.join(pairs)}".replace("/", "-"),
            [_line(word, i, lines, value(pair)) for i, (pair, word) in enumerate(pairs.items())] + [_zero(lines)],
            f"{title}: {label} over training", label,
        )
        for name, label, value in (("rank", RANK, rank), ("cosine", COSINE, cosine))
    }  # fmt: skip
    return SECTION.format(title=title, **charts)


def _line(name: str, number: int, lines: Sequence[dict], value: Callable[[dict], Interval]) -> Line:
    points = [(line["step"], value(line)) for line in lines]
    return Line(name, STYLES[number], [point for point in points if point[1].value is not None])


def _zero(lines: Sequence[dict]) -> Line:
    """The level that tells alike from opposite, so that charts without a negative value can be compared too."""
    return Line("0: unrelated", CONTROL, [(step, Interval(0.0, None, None, 0)) for step in (0, lines[-1]["step"])])


def _chart(key: str, lines: Sequence[Line], label: str, ylabel: str) -> Markup:
    return curves(key, [line for line in lines if line.points], label=label, ylabel=ylabel)


def _words(name: str) -> str:
    return name.replace("_", " ")


def _table(table: list[tuple[str, str, str, str]]) -> Markup:
    cell = lambda kind, text: Markup("<{0}>{1}</{0}>").format(kind, text)  # noqa: E731
    head = Markup("").join(cell("th", text) for text in HEADER)
    body = (cell("tr", Markup("").join(cell("td", text) for text in row)) for row in table)
    return Markup("<table><thead><tr>{}</tr></thead><tbody>{}</tbody></table>").format(head, Markup("").join(body))
