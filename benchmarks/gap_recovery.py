"""Does the solver-verifier forecast recover what made the curves, and keep silent where it should? Synthetic curves.

    python -m benchmarks.gap_recovery                  # 200 draws a family, a minute or two on one core
    python -m benchmarks.gap_recovery --draws 20

Curves of `equations` come from the differential equations themselves (numerical integration, not the closed form), over
a grid of rates, ratios beta / alpha and noise, 11 rounds; the limits' relative error and the coverage of their 95 %
intervals are of the joint fit, whether it is believed or not, and of those that were forecast by whatever model won.
The other families are what the equations are not: rates of their own (free), power laws, a sudden step, a straight
line, a random walk, standing still. What wins is counted: a model's name, or why nothing was forecast. No model, no
clock; one JSON line to --out.
"""

import argparse
import json
import sys
from collections import Counter
from datetime import datetime, timezone
from itertools import product
from pathlib import Path

import numpy as np
from rich.table import Table

from benchmarks import timing
from benchmarks.token_stats import console
from poc.gap import fit
from poc.gap.equations import integrated
from poc.gap.forecast import JOINT, MODELS, Bounds, drawn_anew, forecast, interval, widening

ROUNDS = np.arange(11.0)
RATES, RATIOS, NOISES = (0.2, 0.35, 0.6), (0.1, 0.4, 0.7), (0.005, 0.02)  # noise: of the solver's amplitude
START, GAP_LIMIT = (40.0, 28.0), 3.0  # U_s, U_v, b
RESULTS = timing.ROOT / "benchmarks" / "results" / "gap_recovery.jsonl"


def equations(draw: int, random: np.random.Generator):
    """A noisy pair of curves [2, n] and the true limits of U_s, U_v, G."""
    places = list(product(RATES, RATIOS, NOISES))
    rate, ratio, noise = places[draw % len(places)]
    alpha = rate / (1 - ratio)
    beta = alpha - rate
    far = integrated(alpha, beta, 1.0, GAP_LIMIT, *START, [*ROUNDS, 200 / rate])
    clean, limit = far[:, :-1], far[:, -1]
    scale = noise * (clean[0, 0] - limit[0])
    return clean + random.normal(0, scale, clean.shape), np.array([*limit, limit[0] - limit[1]])


def _noisy(curves: np.ndarray, random: np.random.Generator, noise: float = 0.01) -> np.ndarray:
    return curves + random.normal(0, noise * np.ptp(curves[0]), curves.shape)


def own_rates(random: np.random.Generator) -> np.ndarray:
    """The solver much faster than the verifier, or slower."""
    fast, slow = random.uniform(0.8, 1.2), random.uniform(0.1, 0.2)
    rates = (fast, slow) if random.random() < 0.5 else (slow, fast)
    return _noisy(np.stack([20 * np.exp(-rates[0] * ROUNDS) + 20, 8 * np.exp(-rates[1] * ROUNDS) + 15]), random)


def power_law(random: np.random.Generator) -> np.ndarray:
    p = random.uniform(0.3, 1.0, 2)
    return _noisy(np.stack([25 * (1 + ROUNDS) ** -p[0] + 10, 12 * (1 + ROUNDS) ** -p[1] + 8]), random)


def sudden(random: np.random.Generator) -> np.ndarray:
    """What the re-analysis of the paper saw: one update in which answers get short."""
    when = random.integers(3, 8)
    fallen = ROUNDS >= when
    return _noisy(np.stack([np.where(fallen, 12.0, 40.0), np.where(fallen, 8.0, 28.0)]), random)


def straight(random: np.random.Generator) -> np.ndarray:
    return _noisy(np.stack([40 - random.uniform(1, 2) * ROUNDS, 28 - random.uniform(0.3, 0.8) * ROUNDS]), random)


def walk(random: np.random.Generator) -> np.ndarray:
    return np.stack([40 + random.normal(0, 1, 11).cumsum(), 28 + random.normal(0, 1, 11).cumsum()])


def still(random: np.random.Generator) -> np.ndarray:
    return np.array([[40.0], [28.0]]) + random.normal(0, 0.3, (2, 11))


FAMILIES = {"own rates": own_rates, "power law": power_law, "sudden step": sudden, "straight line": straight,
            "random walk": walk, "standing still": still}  # fmt: skip


def recovery(draws: int) -> dict:
    """Of the equations' own curves: errors and coverage of the joint fit's limits, and of what was forecast."""
    random = np.random.default_rng(0)
    errors, inside, won = [], [], Counter()
    forecast_inside = []
    for draw in range(draws):
        curves, truth = equations(draw, random)
        line = MODELS[JOINT](ROUNDS, curves)
        limits = np.stack([one.limit for one in drawn_anew(JOINT, line, ROUNDS, curves)])
        bounds = [Bounds(*interval(line.limit[i], limits[:, i], widening(len(ROUNDS)))) for i in range(3)]
        errors.append(np.abs(line.limit / truth - 1))
        inside.append([b.low <= t <= b.high for b, t in zip(bounds, truth, strict=True)])
        seen = forecast(ROUNDS, *curves)
        won[_winner(seen)] += 1
        if not seen.abstained:
            forecast_inside.append([b.low <= t <= b.high for b, t in zip(seen.limits.values(), truth, strict=True)])
    return {
        "draws": draws, "median_error": np.median(errors, axis=0).tolist(),
        "coverage": np.mean(inside, axis=0).tolist(), "forecast": len(forecast_inside), "won": dict(won),
        "forecast_coverage": np.mean(forecast_inside, axis=0).tolist() if forecast_inside else None,
    }  # fmt: skip


def others(draws: int) -> dict[str, dict[str, int]]:
    """Who wins on curves that are not the equations'."""
    found = {}
    for name, family in FAMILIES.items():
        random = np.random.default_rng(1)
        found[name] = dict(Counter(_winner(forecast(ROUNDS, *family(random))) for _ in range(draws)))
    return found


def _winner(seen) -> str:
    return f"no forecast: {seen.abstained.code}" if seen.abstained else seen.model


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser("python -m benchmarks.gap_recovery", description=__doc__.split("\n")[0])
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args(argv)
    record = {
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "command": f"python -m benchmarks.gap_recovery --draws {options.draws}", **timing.environment("cpu"),
        "parameters": fit.PARAMETERS, "equations": recovery(options.draws), "others": others(options.draws),
    }  # fmt: skip
    options.out.parent.mkdir(parents=True, exist_ok=True)
    with options.out.open("a") as file:
        file.write(json.dumps(record) + "\n")
    _show(record)
    return 0


def _show(record: dict) -> None:
    own = record["equations"]
    for i, name in enumerate(("solver", "verifier", "gap")):
        console.print(
            f"limit of {name}: median relative error {own['median_error'][i]:.1%}, 95 % intervals hold the truth in "
            f"{own['coverage'][i]:.1%} of {own['draws']}", highlight=False,
        )  # fmt: skip
    table = Table("curves of", "who wins")
    for name, won in {"the equations": own["won"], **record["others"]}.items():
        ranked = sorted(won.items(), key=lambda item: -item[1])
        table.add_row(name, ", ".join(f"{who} {count / own['draws']:.0%}" for who, count in ranked))
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
