"""`poc gap RUN...`: the measurements of each run, the fit, every model's error, and one sentence; in the terminal."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from rich.table import Table

from poc.display import console
from poc.gap import cross, words
from poc.gap.curves import Analysis, Curves, Timing, analysed, read, timings, until
from poc.text import clip, visible

COLUMNS = {
    "solver": "U_s", "verifier": "U_v", "gap": "gap", "solver_nll": "nats/token", "solver_length": "tokens",
    "solver_accuracy": "solver right", "verifier_accuracy": "chosen right", "oracle_accuracy": "any right",
}  # fmt: skip
SHARES = ("solver_accuracy", "verifier_accuracy", "oracle_accuracy")


def show(folders: Sequence[Path], last: int | None) -> None:
    """Raises InputError for a folder without measurements."""
    runs = list({(c.name, str(folder)): until(c, last) for folder in folders for c in read(folder)}.values())
    for found in map(analysed, (run for run in runs if run.measured)):
        console.print(_measured(found.curves))
        _say(found)
    if compared := timings(runs):
        console.print(_compared(compared))
        for line in conclusions(compared, runs):
            print(line)


def _measured(curves: Curves) -> Table:
    title = f"{visible(curves.name)}: {curves.model} on {curves.task}, seed {curves.seed}, verifier {curves.verifier}"
    table = Table(curves.unit, *COLUMNS.values(), title=clip(title, 150), title_justify="left")
    for i, step in enumerate(curves.times):
        row = [(name, curves.values(name)[i]) for name in COLUMNS]
        table.add_row(f"{step:.0f}", *(_cell(name, value) for name, value in row))
    return table


def _cell(name: str, value: float | None) -> str:
    return "–" if value is None else f"{value:.1%}" if name in SHARES else f"{value:.3f}"


def _say(found: Analysis) -> None:
    seen = found.forecast
    if seen.fit:
        d = seen.fit.dynamics
        bound = f" (on the border: {seen.fit.bound})" if seen.fit.bound else ""
        print(
            f"equations: rate {d.rate:.3g} a {found.curves.unit}, alpha {d.alpha:.3g}, beta {d.beta:.3g} (k = 1), "
            f"limits {d.solver_limit:.3g} and {d.verifier_limit:.3g} nats{bound}; R2 of solver, verifier, gap: "
            f"{_three(seen.fit.r2)}; with a rate each: {_three(seen.free)}"
        )
    if found.curves.pace is None:
        print("this run has not ended, or was killed: poc resume goes on with it")
    if seen.errors:
        ranked = sorted(seen.errors.items(), key=lambda item: item[1])
        print("error of forecasts from earlier measurements, nats: " + ", ".join(f"{n} {e:.3g}" for n, e in ranked))
    print(words.sentence(found))


def _three(values) -> str:
    return ", ".join("–" if np.isnan(v) else f"{v:.3f}" for v in values)


def _compared(rows: Sequence[Timing]) -> Table:
    table = Table("external answers", "seeds", "U_s at the end (95 %)", "right at the end", "gamma (95 %)")
    for row in rows:
        right = [a for a in row.accuracy if a is not None]
        table.add_row(
            row.when or "none", str(len(row.seeds)), _bounds(row.solver), f"{np.mean(right):.1%}" if right else "–",
            _bounds(row.gamma) if row.gamma else "–",
        )  # fmt: skip
    return table


def _bounds(values: Sequence[float]) -> str:
    value, low, high = cross.mean_over_seeds(values)
    return f"{value:.3g} ({low:.3g} to {high:.3g})"


def conclusions(rows: Sequence[Timing], runs: Sequence[Curves]) -> list[str]:
    """Whether the timing mattered, seed by seed, and what the paper's model says of that."""
    by = {row.when: row for row in rows if row.when}
    lines = []
    for one, other in (("early", "late"), ("early", "uniform"), ("uniform", "late")):
        if one in by and other in by and by[one].seeds == by[other].seeds:
            (mean, low, high), p = cross.same(by[one].solver, by[other].solver)
            lines.append(f"U_s, {one} minus {other}: {mean:+.3g} nats ({low:+.3g} to {high:+.3g}), p = {p:.2g}")
            if None not in (*by[one].accuracy, *by[other].accuracy):
                (mean, low, high), p = cross.same(by[one].accuracy, by[other].accuracy)
                points = f"{100 * mean:+.1f} points ({100 * low:+.1f} to {100 * high:+.1f})"
                lines.append(f"right answers, {one} minus {other}: {points}, p = {p:.2g}")
    gammas = [g for row in rows for g in row.gamma]
    rounds = next(run.rounds for run in runs if run.external)
    if gammas and (gamma := float(np.mean(gammas))) > 0:
        lines.append(
            f"gamma = {gamma:.3g}: by the paper's own model the timings differ by "
            f"{cross.spread(gamma, rounds):.1%} in U_v"
        )
    return lines
