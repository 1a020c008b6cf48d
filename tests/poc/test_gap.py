"""Solver and verifier, the pure part: the equations against numerical integration, fits against what made the curves,
forecasts against what they should not say, and the sentences."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from benchmarks import gap_recovery
from poc.config import Cost, External
from poc.gap import cross, fit, honesty, words
from poc.gap.curves import Curves, analysed, read, timings, until
from poc.gap.equations import Dynamics, integrated, solution
from poc.gap.forecast import MODELS, NAMES, forecast, rolling_origin
from poc.records import InputError

T = np.arange(11.0)
RATE, UNIT = st.floats(0.05, 2.0), st.floats(0.0, 0.95)


@settings(max_examples=60)
@given(RATE, UNIT, st.floats(0.2, 3.0), st.floats(-2.0, 5.0), st.floats(10.0, 80.0), st.floats(1.0, 9.0))
def test_the_closed_form_is_the_integrated_equations(alpha, share, k, b, solver, less):
    beta, verifier = share * alpha, solver - less
    found = solution(alpha, beta, k, b, solver, verifier).at(T)
    assert np.abs(found[:2] - integrated(alpha, beta, k, b, solver, verifier, T)).max() < 1e-8
    assert np.abs(found[2] - (found[0] - found[1])).max() == 0


def test_a_hand_worked_solution():
    """alpha 0.4, beta 0.1, k 1, b 2 from (20, 12): lambda 0.3, delta 6, amplitudes 8 and 2, limits 12 and 10."""
    d = solution(0.4, 0.1, 1.0, 2.0, 20.0, 12.0)
    assert (d.rate, d.solver_amplitude, d.verifier_amplitude) == pytest.approx((0.3, 8, 2))
    assert (d.solver_limit, d.verifier_limit, d.gap_limit) == pytest.approx((12, 10, 2))
    assert (d.alpha, d.beta) == pytest.approx((0.4, 0.1))


@pytest.mark.parametrize("alpha, beta, k", [(0.1, 0.2, 1), (0.2, 0.2, 1), (0.2, -0.1, 1), (0.2, 0.1, 0)])
def test_equations_that_are_none(alpha, beta, k):
    with pytest.raises(ValueError, match="alpha > beta >= 0"):
        solution(alpha, beta, k, 0.0, 10.0, 5.0)


@settings(max_examples=40, deadline=None)
@given(st.floats(0.1, 1.5), st.floats(0.0, 0.9), st.floats(0.0, 4.0))
def test_a_fit_finds_what_made_the_curves(rate, share, b):
    alpha = rate / (1 - share)
    d = solution(alpha, alpha - rate, 1.0, b, 40.0, 30.0)
    found = fit.joint(T, *d.at(T)[:2])
    assert found.dynamics.rate == pytest.approx(rate, rel=1e-3)
    assert found.dynamics.solver_limit == pytest.approx(d.solver_limit, abs=0.02 * (1 + abs(d.solver_amplitude)))
    assert min(found.r2[0], found.r2[2]) > 0.99999 and not found.at_edge


def test_the_fit_is_the_least_sum_of_squares():
    """Against a general optimiser on the same three residuals, from many starts, on noisy curves."""
    from scipy.optimize import minimize

    curves, _ = gap_recovery.equations(4, np.random.default_rng(3))

    def loss(x):
        d = Dynamics(math.exp(x[0]), x[1] ** 2 + x[2] ** 2, x[1] ** 2, x[3], x[4])
        r = np.stack([*curves, curves[0] - curves[1]]) - d.at(T)
        return (r**2).sum()

    starts = [[math.log(rate), 2, 3, 10, 10] for rate in (0.1, 0.3, 1.0)]
    options = {"maxiter": 20_000, "maxfev": 20_000, "xatol": 1e-9, "fatol": 1e-12}
    least = min(minimize(loss, start, method="Nelder-Mead", options=options).fun for start in starts)
    ours = (fit.joint(T, *curves).residuals ** 2).sum()
    assert ours == pytest.approx(least, rel=1e-5)


def test_borders_are_kept_and_said():
    """A verifier that rises cannot be beta >= 0: it stands still in the fit; a gap that widens stands still too."""
    rising = np.stack([20 * np.exp(-0.3 * T) + 20, 15 + 0.3 * T])
    found = fit.joint(T, *rising)
    assert found.dynamics.verifier_amplitude == 0 and found.bound == "verifier stands still"
    widening = np.stack([10 * np.exp(-0.3 * T) + 20, 14 * np.exp(-0.3 * T) + 2])
    found = fit.joint(T, *widening)
    assert found.dynamics.gap_amplitude == 0 and found.bound == "gap stands still"
    assert found.dynamics.alpha == math.inf


@given(st.floats(0.1, 1.2), st.floats(-20, 20), st.floats(-5, 50))
def test_one_curve_alone(p, a, c):
    assume(abs(a) > 0.5)
    found = fit.alone("exponential", T, a * np.exp(-p * T) + c)
    assert np.abs(found.at(T)[0] - (a * np.exp(-p * T) + c)).max() < 0.01 * abs(a)
    found = fit.alone("power", T, a * (1 + T) ** -p + c)
    assert np.abs(found.at(T)[0] - (a * (1 + T) ** -p + c)).max() < 0.01 * abs(a)


def test_a_falling_fit_does_not_rise():
    assert fit.alone("exponential", T, 3 - np.exp(-T), falling=True).a == 0
    assert fit.alone("exponential", T, 3 - np.exp(-T)).a < 0


def test_persistence_and_the_line_by_hand():
    curves = np.array([[4.0, 3, 2, 1], [1.0, 1, 1, 1]])
    at = np.array([4.0, 5.0])
    assert MODELS["persistence"](T[:4], curves).at(at) == pytest.approx(np.array([[1, 1], [1, 1], [0, 0]]))
    assert MODELS["linear"](T[:4], curves).at(at) == pytest.approx(np.array([[0, -1], [1, 1], [-1, -2]]))


def test_rolling_origin_by_hand():
    """Persistence on U_s = 6..1, U_v = 0: origins 4 and 5; errors of U_s and G 1, 2 | 1, of U_v 0."""
    curves = np.array([[6.0, 5, 4, 3, 2, 1], [0.0] * 6])
    errors = rolling_origin(T[:6], curves)
    assert errors["persistence"] == pytest.approx(((1 + 2) / 2 * 2 / 3 + 1 * 2 / 3) / 2)
    assert errors["linear"] == pytest.approx(0, abs=1e-9)


def test_an_origin_never_sees_what_comes_later(monkeypatch):
    seen = []
    monkeypatch.setitem(MODELS, "persistence", lambda t, c: seen.append((len(t), c.shape[1])) or MODELS["linear"](t, c))
    rolling_origin(T, np.stack([40 - T, 20 - T]))
    assert seen == [(m, m) for m in range(4, 11)]


def test_recovery_of_the_equations_and_silence_elsewhere():
    """At a quarter of the draws of benchmarks.gap_recovery: errors below 5 %, coverage about 95 %."""
    own = gap_recovery.recovery(54)
    assert max(own["median_error"]) < 0.05
    assert all(0.85 <= c <= 1.0 for c in own["coverage"])
    found = gap_recovery.others(20)
    for name in ("own rates", "sudden step", "straight line", "random walk", "standing still"):
        assert found[name].get("joint", 0) <= 5, name
    assert sum(n for who, n in found["standing still"].items() if who.startswith("no forecast")) >= 18
    assert sum(n for who, n in found["straight line"].items() if who.startswith("no forecast")) >= 18


def test_the_table_of_recovery(tmp_path, capsys):
    assert gap_recovery.main(["--draws", "3", "--out", str(tmp_path / "out.jsonl")]) == 0
    record = json.loads((tmp_path / "out.jsonl").read_text())
    assert sum(record["equations"]["won"].values()) == 3 and len(record["others"]) == 6
    assert "median relative error" in capsys.readouterr().out


def falling(rounds=T, noise=0.01, seed=0):
    random = np.random.default_rng(seed)
    clean = solution(0.5, 0.15, 1.0, 3.0, 40.0, 28.0).at(rounds)[:2]
    return clean + random.normal(0, noise, clean.shape)


def test_a_forecast_tells_limit_curve_and_rounds():
    """lambda 0.35, amplitude 9 * 0.5 / 0.35 = 12.86: within 5 % after ln 20 / 0.35 = 8.56 rounds."""
    seen = forecast(T[:7], *falling(T[:7]))
    assert seen.abstained is None and set(seen.limits) == set(NAMES)
    assert seen.limits["solver"].low < 40 - 12.857 < seen.limits["solver"].high
    assert seen.limits["solver"].value == pytest.approx(40 - 12.857, abs=0.5)
    assert seen.rounds.value == pytest.approx(8.56 - 6, abs=0.6) and seen.rounds.low <= seen.rounds.high
    assert seen.curve.shape == (3, 3, 200) and seen.times[-1] == 12
    assert (seen.curve[:, 1] <= seen.curve[:, 0] + 1e-9).all() and (seen.curve[:, 0] <= seen.curve[:, 2] + 1e-9).all()
    assert forecast(T, *falling(np.arange(11.0) * 3)).rounds.value == 0  # it is there


@pytest.mark.parametrize(
    "curves, code",
    [
        (np.full((2, 8), 3.0), "constant"),
        (np.stack([T[:8], T[:8] / 2]), "rising"),
        (np.stack([20 - T[:8], 10 - T[:8] / 2]), "straight"),
        (falling(T[:5]), "few"),
        (np.where(T[:8] == 3, np.nan, falling(T[:8])), "not finite"),
        (np.where(T[:8] == 3, np.inf, falling(T[:8])), "not finite"),
    ],
)
def test_what_is_not_forecast(curves, code):
    seen = forecast(T[: curves.shape[1]], *curves)
    assert seen.abstained.code == code and not seen.limits and seen.curve is None and seen.rounds is None
    if code != "straight":
        assert seen.fit is None  # no fit is shown as if it were one


def test_every_reason_has_its_sentence():
    import inspect
    import re

    from poc.gap import forecast as module

    codes = set(re.findall(r'Reason\("([^"]+)"', inspect.getsource(module)))
    assert codes == set(words.REASONS["en"]) == set(words.REASONS["ja"])
    assert forecast(T[::-1], *falling()).abstained.code == "order"


def test_lengths_that_do_not_match():
    with pytest.raises(ValueError, match="one of each per time"):
        forecast(T, T[:5], T)


def test_when_external_answers_are_spent():
    assert cross.shares("early", 10) == [1.0] + [0.0] * 9
    assert cross.shares("late", 10) == [0.0] * 7 + [1.0] + [0.0] * 2
    assert cross.shares("uniform", 4) == [0.25] * 4
    assert [p.stop - p.start for p in cross.portions(10, "uniform", 4)] == [2, 3, 3, 2]
    for when in ("early", "uniform", "late"):
        taken = [i for part in cross.portions(37, when, 8) for i in range(37)[part]]
        assert taken == list(range(37))


def test_timing_matters_beyond_first_order():
    assert cross.factor(0.5, cross.shares("early", 8)) == pytest.approx(2 / 3)
    assert cross.factor(0.5, cross.shares("uniform", 8)) == pytest.approx(0.616, abs=5e-4)
    assert cross.factor(0.5, cross.shares("late", 8)) == pytest.approx(2 / 3)
    assert cross.spread(0.001, 8) < 1e-6 and cross.spread(0.5, 8) > 0.08
    assert cross.factor(1.0, [1e-6] * 1_000_000) == pytest.approx(math.exp(-1), rel=1e-5)


@pytest.mark.parametrize("when", ["early", "uniform", "late"])
def test_gamma_is_found_again(when):
    """In curves that the paper's model made, whatever the model does by itself."""
    eta = cross.shares(when, 10)
    alone = cross.simulated(0.3, 0.1, 1.0, 40.0, 30.0, 0.0, eta)
    given_ = cross.simulated(0.3, 0.1, 1.0, 40.0, 30.0, 0.4, eta)
    assert cross.gamma_of(given_, alone, eta) == pytest.approx(0.4, rel=1e-3)
    assert cross.gamma_of(alone, alone, eta) == pytest.approx(0, abs=1e-4)
    assert cross.gamma_of(alone, alone, [0.0] * 10) is None
    with pytest.raises(ValueError, match="R \\+ 1"):
        cross.gamma_of(given_, alone, eta[:-1])


def test_gamma_where_the_gap_does_not_close():
    """The twin's own factors stand in for the equations: U_v falls by a tenth each round, and to 1 / 1.5 of it once."""
    alone = np.stack([40 - T * 0.1, 20 * 0.9**T])
    given_ = alone.copy()
    given_[1, 3:] /= 1.5
    assert cross.gamma_of(given_, alone, [0, 0, 1.0, *[0] * 7]) == pytest.approx(0.5)


def test_seeds_are_compared_in_pairs():
    (mean, low, high), p = cross.same([1.0, 2.0, 3.0], [0.9, 1.8, 2.7])
    assert mean == pytest.approx(0.2) and low < 0.2 < high and 0 < p < 0.1
    assert cross.same([1.0], [2.0])[1] == 1.0 and cross.same([1.0, 2.0], [1.0, 2.0])[1] == 1.0


def measurement(step, solver=20.0, verifier=15.0, length=10.0, right=0.4, n=40, seed=0):
    random = np.random.default_rng(seed)
    rights = np.clip(right + random.normal(0, 0.05, n), 0, 1)
    entry = lambda v: {"value": v, "low": None, "high": None, "n": n}  # noqa: E731
    names = {
        "solver": solver, "verifier": verifier, "gap": solver - verifier, "solver_nll": solver / length,
        "verifier_nll": verifier / length, "solver_length": length, "verifier_length": length,
        "solver_accuracy": float(rights.mean()), "verifier_accuracy": right, "oracle_accuracy": 0.9,
    }  # fmt: skip
    return {
        "step": step, "summary": {k: entry(v) for k, v in names.items()}, "verifier": "none",
        "questions": [{"solver_accuracy": float(x)} for x in rights],
    }  # fmt: skip


def test_a_fall_is_split_exactly():
    """From 20 nats in 10 tokens to 6 in 4: of -14, length has -6 * 1.75 = -10.5 and certainty -0.5 * 7 = -3.5."""
    first, last = measurement(0)["summary"], measurement(1, solver=6.0, length=4.0)["summary"]
    found = honesty.split(first, last)
    assert (found.whole, found.length, found.certainty) == pytest.approx((-14, -10.5, -3.5))
    assert found.by_length == pytest.approx(0.75)
    assert honesty.split(last, first).by_length is None


def made(**changes) -> Curves:
    pairs = falling().T
    measured = tuple(measurement(i, *pair, right=0.3 + 0.03 * i) for i, pair in enumerate(pairs))
    return replace(Curves("run", "lab:base", "math", 0, "round", measured, 10, pace=360.0), **changes)


def test_sentences_of_a_forecast():
    found = analysed(made(cost=Cost(per_hour=2.0, currency="EUR"), measured=made().measured[:7]))
    said = words.sentence(found)
    assert said.startswith("Going on as before") and "more rounds" in said and "EUR" in said and "clearly more" in said
    assert found.hours == pytest.approx(found.forecast.rounds.value * 0.1)
    assert "ラウンド" in words.sentence(found, "ja") and "Going" not in words.sentence(found, "ja")


def test_sentences_where_nothing_is_forecast():
    short = analysed(until(made(), 3))
    assert words.sentence(short).startswith("No forecast: 4 measurements are too few, a forecast takes 6.")
    shrunk = made(measured=(measurement(0), *(measurement(i, 10.0, 8.0, length=4.0) for i in range(1, 7))))
    said = words.sentence(analysed(shrunk))
    assert "by shorter answers" in said and "Careful" in said and "no clear change" in said
    blind = [m | {"questions": [{"solver_accuracy": None}]} for m in made().measured]
    assert "Without labels" in words.sentence(analysed(made(measured=tuple(blind))))


def test_both_languages_take_the_same_values():
    import re

    fields = lambda text: set(re.findall(r"{(\w+)", text))  # noqa: E731
    for table in (words.REASONS, words.TEXT, words.MODELS):
        assert table["en"].keys() == table["ja"].keys()
        for key, text in table["en"].items():
            if isinstance(text, str):
                assert fields(text) == fields(table["ja"][key]), key


def written(folder, runs):
    import yaml

    for name, (kind, external, seed, curves) in runs.items():
        run = folder / name
        (run / "evaluations" / "gap").mkdir(parents=True)
        config = {
            "model": "lab:base", "data": {"domain": "math", "domains": []}, "train": {"steps": 10, "seed": seed},
            "improve": {"external": external}, "cost": {},
        }  # fmt: skip
        (run / "config.yaml").write_text(yaml.safe_dump(config))
        (run / "environment.json").write_text(json.dumps({"kind": kind}))
        (run / "outcome.json").write_text(json.dumps({"seconds": {"total": 100.0}, "steps": 10}))
        for i, pair in enumerate(curves.T):
            (run / "evaluations" / "gap" / f"step-{i:06d}.json").write_text(json.dumps(measurement(i, *pair)))


def test_reading_a_run(tmp_path):
    written(tmp_path, {"a": ("improve", None, 3, falling()), "b": ("train", None, 0, falling())})
    (found,), (other,) = read(tmp_path / "a"), read(tmp_path / "b")
    assert (found.unit, other.unit, found.seed, found.pace, len(found.measured)) == ("round", "step", 3, 10.0, 11)
    (tmp_path / "a" / "evaluations" / "gap" / "step-000004.json").write_text('{"step": 4, "summary": {}}')
    with pytest.raises(InputError, match="step-000004.json: cannot be read"):
        read(tmp_path / "a")
    bad = {"value": 10**400}, {"value": -5.0}, {"value": "x"}, {"value": None}, {"value": 1e308}, {}
    for entry in bad:
        spoilt = measurement(4)
        spoilt["summary"]["solver"] = entry
        (tmp_path / "a" / "evaluations" / "gap" / "step-000004.json").write_text(json.dumps(spoilt))
        with pytest.raises(InputError, match="step-000004.json: cannot be read.*put it back"):
            read(tmp_path / "a")
    (tmp_path / "a" / "evaluations" / "gap" / "step-000004.json").write_text(json.dumps(measurement(5)))
    with pytest.raises(InputError, match="not that of its name"):
        read(tmp_path / "a")
    with pytest.raises(InputError, match="is no folder of a run"):
        read(tmp_path / "nothing")
    (tmp_path / "c").mkdir()
    (tmp_path / "c" / "config.yaml").write_text("model: x")
    with pytest.raises(InputError, match="gap.every=10"):
        read(tmp_path / "c")


def test_timings_are_compared_by_seed(tmp_path):
    eta = {when: cross.shares(when, 10) for when in ("early", "uniform", "late")}
    alone = cross.simulated(0.3, 0.1, 1.0, 40.0, 30.0, 0.0, eta["early"])
    runs = {f"alone{s}": ("improve", None, s, alone + s) for s in (0, 1)}
    for when, shares in eta.items():
        curves = cross.simulated(0.3, 0.1, 1.0, 40.0, 30.0, 0.4, shares)
        told = {"answers": "lab:instruct", "count": 64, "when": when}
        runs |= {f"{when}{s}": ("improve", told, s, curves + s) for s in (0, 1)}
    written(tmp_path, runs)
    found = timings([c for name in runs for c in read(tmp_path / name)])
    assert [row.when for row in found] == [None, "early", "uniform", "late"]
    assert [len(row.gamma) for row in found] == [0, 2, 2, 2]
    assert found[1].gamma[0] == pytest.approx(0.4, rel=0.05)
    other = replace(read(tmp_path / "early0")[0], external=External(answers="lab:base"))
    with pytest.raises(InputError, match="are the same"):
        timings([other, *read(tmp_path / "late0")])


def test_conclusions_on_timing(tmp_path):
    from poc.gap.show import conclusions

    runs = {}
    for when, end in (("early", 9.0), ("late", 10.0)):
        told = {"answers": "lab:instruct", "count": 64, "when": when}
        for s in (0, 1, 2):
            runs[f"{when}{s}"] = ("improve", told, s, np.stack([np.linspace(20, end + 0.1 * s, 11), T * 0 + 5]))
    written(tmp_path, runs)
    found = [c for name in runs for c in read(tmp_path / name)]
    lines = conclusions(timings(found), found)
    assert lines[0].startswith("U_s, early minus late: -1 nats (-1 to -1)")
    assert lines[1].startswith("right answers, early minus late: +0.0 points")


def test_show_prints_everything(tmp_path, capsys):
    from poc.gap.show import show

    written(tmp_path, {"a\x1b]0;x\x07": ("improve", None, 0, falling())})
    show([next(tmp_path.iterdir())], None)
    printed = capsys.readouterr().out
    assert "equations: rate" in printed and "error of forecasts" in printed and "\x1b]0" not in printed
