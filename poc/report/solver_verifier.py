"""The page's section on solver and verifier: a phase portrait with the fitted flow, curves with their forecast, what the
fit leaves over, and the words. Pure: it gets what poc.gap.curves read and analysed.
"""

from collections.abc import Sequence

import matplotlib
import numpy as np
from markupsafe import Markup

from poc.gap import words
from poc.gap.curves import Analysis, Curves, analysed
from poc.gap.equations import Dynamics
from poc.report.charts import RC, STYLES, as_svg, new_figure
from poc.text import clip

MOST = 8  # runs with charts
SOLVER, VERIFIER, GAP = STYLES[:3]
LABELS = {
    "en": {
        "solver": "solver U_s", "verifier": "verifier U_v", "gap": "gap", "nats": "nats", "round": "round",
        "step": "training step", "start": "start", "now": "now", "limit": "limit", "residual": "measured - fitted, nats",
        "phase": "Phase portrait: the solver's uncertainty against the verifier's, measured from start to now, with the "
                 "direction in which the fitted equations move.",
        "curves": "Uncertainty of an answer as it is drawn (solver), of the one that the model chooses (verifier), and "
                  "the gap between them, by {unit}; the lines beyond the last mark are the forecast with its 95 % band.",
        "residuals": "What the fitted equations leave over at each {unit}.",
        "accuracy": "right answers, %", "right": "Right answers of the solver (all candidates), of the verifier (the "
                    "chosen ones) and of an oracle (any of them), by {unit}.",
        "oracle": "any right", "solver_right": "solver", "verifier_right": "chosen",
        "caption": "Measurements", "columns": {
            "solver": "U_s", "verifier": "U_v", "gap": "gap", "solver_nll": "nats a token", "solver_length": "tokens",
            "solver_accuracy": "solver right", "verifier_accuracy": "chosen right"},
        "model": "model", "error": "error of earlier forecasts, nats", "errors": "Who foresaw best",
        "fit": "Equations: rate {rate:.3g}, alpha {alpha:.3g}, beta {beta:.3g} (k = 1); R² of solver, verifier, gap "
               "{r2}; with a rate of its own each {free}.",
        "heading": "Would more training help: solver and verifier",
        "lead": "Uncertainty is the negative log-probability of a whole answer, in nats: of an answer as it is drawn "
                "(solver) and of the one that the model itself would choose among several (verifier). Where the gap "
                "between them closes, learning from oneself comes to its end. Uncertainty also falls when answers get "
                "shorter, so right answers and lengths stand beside it. A forecast is shown only where a model has "
                "foreseen the later measurements from the earlier ones clearly better than \"it stays as it is\".",
        "more": "{0} more runs are left out here; poc gap prints them.",
    },
    "ja": {
        "solver": "解答側 U_s", "verifier": "検証側 U_v", "gap": "ギャップ", "nats": "ナット", "round": "ラウンド",
        "step": "学習ステップ", "start": "開始", "now": "現在", "limit": "収束値", "residual": "測定値－当てはめ（ナット）",
        "phase": "位相図：解答側の不確実性（横）と検証側の不確実性（縦）の開始から現在までの測定値と、当てはめた方程式が進む方向。",
        "curves": "そのまま出した回答（解答側）とモデル自身が選んだ回答（検証側）の不確実性、およびその差（ギャップ）の{unit}ごとの"
                  "推移。最後の測定点より先は予測と95 %の帯です。",
        "residuals": "当てはめた方程式と測定値の差（{unit}ごと）。",
        "accuracy": "正答率（％）", "right": "解答側（全候補）、検証側（選ばれた候補）、理想（どれか一つでも正解）の正答率の{unit}"
                    "ごとの推移。",
        "oracle": "どれか正解", "solver_right": "解答側", "verifier_right": "選択",
        "caption": "測定値", "columns": {
            "solver": "U_s", "verifier": "U_v", "gap": "ギャップ", "solver_nll": "1トークンのナット",
            "solver_length": "トークン数", "solver_accuracy": "解答側の正答率", "verifier_accuracy": "選択の正答率"},
        "model": "モデル", "error": "過去の予測の誤差（ナット）", "errors": "どのモデルが最もよく当てたか",
        "fit": "方程式：速度{rate:.3g}、α {alpha:.3g}、β {beta:.3g}（k = 1）。決定係数R²（解答側、検証側、ギャップ）{r2}、"
               "速度を別々にした場合{free}。",
        "heading": "学習を続ける価値はあるか：解答側と検証側",
        "lead": "不確実性とは回答全体の対数確率の符号を変えた値（ナット）です。そのまま出した回答のもの（解答側）と、複数の候補から"
                "モデル自身が選ぶ回答のもの（検証側）を比べます。両者のギャップが閉じると、自分自身から学ぶ余地はなくなります。不確実性は"
                "回答が短くなるだけでも下がるため、正答率と長さを並べて示します。予測は、初期の測定値から後の測定値を「現状のまま」より"
                "明らかに正確に当てたモデルがある場合にだけ示します。",
        "more": "ほか{0}件の実行はここでは省略しました。poc gap で表示できます。",
    },
}  # fmt: skip


def section(runs: Sequence[Curves], language: words.Language = "en") -> dict:
    """{"runs": [...], "more": a line or ""}; no runs where nothing was measured."""
    found = [analysed(run) for run in runs if len(run.measured) > 1]
    more = LABELS[language]["more"].format(len(found) - MOST) if len(found) > MOST else ""
    return {
        "runs": [_run(one, f"sv{i}", language) for i, one in enumerate(found[:MOST])], "more": more,
        "heading": LABELS[language]["heading"], "lead": LABELS[language]["lead"],
    }  # fmt: skip


def _run(found: Analysis, key: str, language: words.Language) -> dict:
    labels, curves = LABELS[language], found.curves
    return {
        "title": clip(f"{curves.name}: {curves.model}, {curves.task}", 120),
        "sentence": words.sentence(found, language),
        "fit": _fit(found, labels),
        "charts": [
            phase(found, f"{key}p", labels), over_time(found, f"{key}c", labels),
            *([residuals(found, f"{key}r", labels)] if found.forecast.fit else []),
            *([right(found, f"{key}a", labels)] if None not in curves.values("solver_accuracy") else []),
        ],
        "caption": labels["caption"], "columns": [labels[curves.unit], *labels["columns"].values()],
        "rows": [_row(curves, i, labels) for i in range(len(curves.measured))],
        "errors": [[words.MODELS[language][name], f"{error:.3g}"]
                   for name, error in sorted(found.forecast.errors.items(), key=lambda item: item[1])],
        "error_caption": labels["errors"], "error_columns": [labels["model"], labels["error"]],
    }  # fmt: skip


def _fit(found: Analysis, labels: dict) -> str:
    if not found.forecast.fit:
        return ""
    d = found.forecast.fit.dynamics
    r2, free = (", ".join(f"{v:.3f}" for v in values) for values in (found.forecast.fit.r2, found.forecast.free))
    return labels["fit"].format(rate=d.rate, alpha=d.alpha, beta=d.beta, r2=r2, free=free)


def _row(curves: Curves, i: int, labels: dict) -> list[str]:
    cells = []
    for name in labels["columns"]:
        value = curves.values(name)[i]
        cells.append("–" if value is None else f"{value:.1%}" if name.endswith("accuracy") else f"{value:.2f}")
    return [f"{curves.times[i]:.0f}", *cells]


def phase(found: Analysis, key: str, labels: dict) -> Markup:
    """U_v against U_s; arrows: dU = (-alpha E, -beta E) of the fitted equations."""
    solver, verifier = (np.array(found.curves.values(name), float) for name in ("solver", "verifier"))
    with matplotlib.rc_context(RC | {"axes.grid": False}):
        figure, axes = new_figure(5.0, 3.8)
        axes.plot(solver, verifier, color=SOLVER.color, marker="o", markersize=4, linewidth=1.5, zorder=3)
        for text, i in ((labels["start"], 0), (labels["now"], -1)):
            axes.annotate(text, (solver[i], verifier[i]), (6, 6), textcoords="offset points", fontsize=9.5)
        axes.margins(0.18)
        if found.forecast.fit:
            _flow(axes, found.forecast.fit.dynamics, "" if found.forecast.abstained else labels["limit"])
        axes.set(xlabel=f"{labels['solver']} ({labels['nats']})", ylabel=f"{labels['verifier']} ({labels['nats']})")
        return as_svg(figure, key, labels["phase"])


def _flow(axes, d: Dynamics, limit: str) -> None:
    """Arrows, and the limit by this name where it is believed."""
    if limit:
        end = (d.solver_limit, d.verifier_limit)
        axes.plot(*([x] for x in end), marker="*", markersize=11, color=VERIFIER.color, zorder=4)
        axes.annotate(limit, end, (6, -13), textcoords="offset points", fontsize=9.5)
    (x0, x1), (y0, y1) = axes.get_xlim(), axes.get_ylim()
    x, y = np.meshgrid(np.linspace(x0, x1, 11), np.linspace(y0, y1, 8))
    energy = x - y - d.gap_limit
    if 0 < d.alpha < np.inf:
        axes.quiver(x, y, -d.alpha * energy, -d.beta * energy, angles="xy", color="#9a9a9a", width=0.003)
    axes.set(xlim=(x0, x1), ylim=(y0, y1))


def over_time(found: Analysis, key: str, labels: dict) -> Markup:
    """The three curves as measured, and where they are foreseen to go."""
    curves, seen = found.curves, found.forecast
    with matplotlib.rc_context(RC):
        figure, axes = new_figure(5.4, 3.6)
        for i, (name, style) in enumerate((("solver", SOLVER), ("verifier", VERIFIER), ("gap", GAP))):
            values = curves.values(name)
            line = "none" if seen.curve is not None else style.line
            axes.plot(curves.times, values, color=style.color, marker=style.marker, markersize=5, linestyle=line,
                      label=labels[name])  # fmt: skip
            if seen.curve is not None:
                value, low, high = seen.curve[i]
                axes.fill_between(seen.times, low, high, color=style.color, alpha=0.13, linewidth=0)
                axes.plot(seen.times, value, color=style.color, linestyle=style.line, linewidth=1.6)
        if seen.curve is not None:
            axes.axvline(curves.times[-1], color="#767676", linewidth=0.8, linestyle=":")
        axes.set(xlabel=labels[curves.unit], ylabel=labels["nats"])
        axes.legend(frameon=False, fontsize=9.5)
        return as_svg(figure, key, labels["curves"].format(unit=labels[curves.unit]))


def residuals(found: Analysis, key: str, labels: dict) -> Markup:
    with matplotlib.rc_context(RC):
        figure, axes = new_figure(5.4, 2.6)
        axes.axhline(0, color="#767676", linewidth=0.8)
        for row, (name, style) in zip(
            found.forecast.fit.residuals, (("solver", SOLVER), ("verifier", VERIFIER), ("gap", GAP)), strict=True
        ):
            axes.plot(found.curves.times, row, color=style.color, marker=style.marker, markersize=4.5, linewidth=1,
                      linestyle=style.line, label=labels[name])  # fmt: skip
        axes.set(xlabel=labels[found.curves.unit], ylabel=labels["residual"])
        axes.legend(frameon=False, fontsize=9, ncols=3)
        return as_svg(figure, key, labels["residuals"].format(unit=labels[found.curves.unit]))


def right(found: Analysis, key: str, labels: dict) -> Markup:
    """What counts: right answers beside the uncertainties."""
    shown = (("solver_accuracy", "solver_right", SOLVER), ("verifier_accuracy", "verifier_right", VERIFIER),
             ("oracle_accuracy", "oracle", GAP))  # fmt: skip
    with matplotlib.rc_context(RC):
        figure, axes = new_figure(5.4, 2.8)
        for name, label, style in shown:
            values = [100 * v if v is not None else np.nan for v in found.curves.values(name)]
            axes.plot(found.curves.times, values, color=style.color, linestyle=style.line, marker=style.marker,
                      markersize=4.5, label=labels[label])  # fmt: skip
        axes.set(xlabel=labels[found.curves.unit], ylabel=labels["accuracy"], ylim=(0, None))
        axes.legend(frameon=False, fontsize=9.5, ncols=3)
        return as_svg(figure, key, labels["right"].format(unit=labels[found.curves.unit]))
