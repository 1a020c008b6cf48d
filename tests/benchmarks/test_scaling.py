"""The scaling study's counts, fit and picture, on made-up times and one tiny point."""

from dataclasses import asdict, replace

import numpy as np
import pytest

from benchmarks import scaling
from benchmarks.scaling import BASE, FACTORS, HELD_OUT, Point
from poc.memory import Shape


def shape_of(point: Point) -> Shape:
    weights = point.layers * (4 * point.hidden**2 + 9 * point.hidden**2)
    return Shape(
        layers=point.layers, hidden=point.hidden, intermediate=3 * point.hidden, heads=point.hidden // 32,
        kv_heads=point.hidden // 32, head_dim=32, vocabulary=point.vocabulary, itemsize=4, weights=4 * weights,
        linear=weights, rank=16, adapter=1000, masks=1, merges=True,
        cost=4 * point.hidden * point.layers / (2 * weights),
    )  # fmt: skip


def made_up(point: Point, noise: float = 0.0) -> dict:
    terms = scaling.work(point, shape_of(point), 8)
    true = {"rollout": [0.3, 0.02, 0.01, 0.0, 0.004], "update": [0.5, 0.01, 0.02, 0.001]}
    rng = np.random.default_rng(point.hidden + point.prompt)
    seconds = {s: float(np.dot(terms[s], true[s]) * (1 + noise * rng.standard_normal())) for s in true}
    return {
        "point": asdict(point), "terms": terms,
        "peak": dict.fromkeys(true, 2**20), "estimate": dict.fromkeys(true, 2**20),
        "seconds": {s: {"median": t, "least": 0.9 * t, "most": 1.1 * t} for s, t in seconds.items()},
    }  # fmt: skip


def test_one_factor_at_a_time_around_the_base():
    points = scaling.points()
    assert points[0] == BASE and len(points) == len(set(points)) == 1 + sum(len(v) - 1 for _, v in FACTORS.values())
    different = [sum(a != b for a, b in zip(asdict(p).values(), asdict(BASE).values(), strict=True)) for p in points]
    assert different == [0] + [1] * (len(points) - 1)
    assert not set(HELD_OUT) & set(points)


def test_the_terms_by_hand():
    """4 prompts of 10 tokens, 2 completions of 3 each, all at once, one prompt a pass in the update."""
    point = Point(group=2, prompt=10, answer=3, vocabulary=1000, hidden=64)
    shape = replace(shape_of(point), cost=0.0)
    terms = scaling.work(point, shape, 2)
    body, head = 2 * shape.linear / 1e9, 2 * 1000 * 64 / 1e9
    steps, layers = 3, 2
    assert terms["rollout"][:3] == pytest.approx([(steps + 1) * layers / 1e3, (8 * 3 + 40) * body, 8 * 3 * head])
    assert terms["update"] == pytest.approx(
        [4 * layers / 1e3, 2 * 4 * 16 * body, 2 * 24 * head, 4 * 16 * 64 * layers / 1e6]
    )


def test_the_fit_finds_what_made_the_times_and_is_judged_on_points_it_has_not_seen():
    rows, others = [made_up(p) for p in scaling.points()], [made_up(p) for p in HELD_OUT]
    constants = {stage: scaling.fitted(rows, stage) for stage in ("rollout", "update")}
    assert all(e["most"] < 1e-6 for e in scaling.errors(scaling.with_fit(others, constants)).values())
    noisy = [made_up(p, 0.3) for p in scaling.points()]
    constants = {stage: scaling.fitted(noisy, stage) for stage in ("rollout", "update")}
    assert all(e["most"] > 0.1 for e in scaling.errors(scaling.with_fit(noisy, constants)).values())
    assert all((c >= 0).all() for c in constants.values())


def test_the_table_and_the_picture(tmp_path):
    rows = [made_up(p) for p in scaling.points()]
    rows = scaling.with_fit(rows, {stage: scaling.fitted(rows, stage) for stage in ("rollout", "update")})
    assert len(scaling.table(rows).splitlines()) == 2 + len(rows)
    scaling.draw(rows, tmp_path / "scaling.png")
    assert 5_000 < (tmp_path / "scaling.png").stat().st_size < 200_000


def test_a_tiny_point_is_measured():
    row = scaling.measure(Point(group=2, prompt=5, answer=3, vocabulary=300, hidden=64), 1, lambda text: None)
    assert all(row["seconds"][stage]["least"] > 0 and row["estimate"][stage] > 0 for stage in ("rollout", "update"))
