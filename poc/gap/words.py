"""The sentences about solver and verifier, in English and Japanese: pure functions of an Analysis."""

import math
from typing import Literal

from poc import money
from poc.gap.curves import Analysis
from poc.gap.forecast import Reason

Language = Literal["en", "ja"]

REASONS = {
    "en": {
        "not finite": "a measurement is missing, NaN or infinite",
        "few": "{0:.0f} measurements are too few, a forecast takes {1:.0f}",
        "order": "the times of the measurements do not increase",
        "constant": "the curves are constant: nothing has changed",
        "rising": "the uncertainty of the answers does not fall, and the equations are about a fall",
        "persistence": "no model has foreseen the later measurements better than \"it stays as it is\" (error {0:.3g} "
                       "nats; the best other one {1:.3g})",
        "straight": "a straight line has foreseen best so far: no bend yet that would tell a limit",
        "edge": "the curves do not tell how fast they flatten: measure more often, or longer",
        "turning": "the model that has foreseen best lets the uncertainty rise in the end",
        "wide": "the limit lies between {0:.3g} and {1:.3g} nats, as wide as all that was seen ({2:.3g}): too uncertain "
                "to plan with",
    },
    "ja": {
        "not finite": "測定値に欠損、NaN、または無限大があります",
        "few": "測定回数が{0:.0f}回と少なすぎます（予測には{1:.0f}回以上必要です）",
        "order": "測定時刻が増加していません",
        "constant": "曲線が一定で、何も変化していません",
        "rising": "回答の不確実性が下がっていません（この方程式は低下を前提とします）",
        "persistence": "「現状のまま」という予想より正確に後の測定値を当てたモデルがありません（誤差{0:.3g}ナット、"
                       "他の最良モデルは{1:.3g}）",
        "straight": "これまで最もよく当てたのは直線です。収束先を示す曲がりがまだ見えません",
        "edge": "曲線がどの速さで平らになるか判断できません。測定の間隔を短くするか、より長く測定してください",
        "turning": "最もよく当てたモデルでは、不確実性が最終的に上昇します",
        "wide": "収束値は{0:.3g}～{1:.3g}ナットの範囲にあり、これまでの変化（{2:.3g}）と同じほど広いため、計画には使えません",
    },
}  # fmt: skip
MODELS = {
    "en": {
        "persistence": "it stays as it is", "linear": "straight line", "exponential": "exponential, each curve alone",
        "power": "power law, each curve alone", "free": "equations, a rate of its own each", "joint": "equations, one rate",
    },
    "ja": {
        "persistence": "現状のまま", "linear": "直線", "exponential": "指数関数（曲線ごと）", "power": "べき乗則（曲線ごと）",
        "free": "方程式（速度は別々）", "joint": "方程式（速度は共通）",
    },
}  # fmt: skip
UNITS = {"en": {"round": "rounds", "step": "steps"}, "ja": {"round": "ラウンド", "step": "ステップ"}}
TEXT = {
    "en": {
        "forecast": "Going on as before, the uncertainty of an answer falls from {now:.3g} to about {limit:.3g} nats "
                    "(95 %: {low:.3g} to {high:.3g}); {done:.0%} of the fall is behind us",
        "there": ", and it is within {tolerance:.0%} of its end already: more training would change it little.",
        "rounds": ", and it takes about {rounds:.0f} more {unit} to come within {tolerance:.0%} of its end{cost}.",
        "never": ", but it comes within {tolerance:.0%} of its end so slowly that this is no plan.",
        "none": "No forecast: {reason}.",
        "cost": " ({time}{money})",
        "hours": "{0:.1f} hours", "minutes": "{0:.0f} minutes",
        "fell": " So far it {moved} by {by:.3g} nats{length}.",
        "moved": ("fell", "rose"),
        "length": ", {share:.0%} of that by shorter answers",
        "accuracy": " Right answers went from {before:.1%} to {after:.1%}{word}.",
        "word": {"better": " (clearly more)", "worse": " (clearly fewer)", "no change seen": " (no clear change)"},
        "unlabelled": " Without labels nobody knows whether the answers got better.",
        "caution": " Careful: less uncertainty without more right answers is not capability.",
    },
    "ja": {
        "forecast": "このまま続けると、回答の不確実性は{now:.3g}から約{limit:.3g}ナットまで下がる見込みです（95 %区間："
                    "{low:.3g}～{high:.3g}）。下がる幅の{done:.0%}はすでに達成済み",
        "there": "で、残りは{tolerance:.0%}以内です。これ以上の学習ではほとんど変わりません。",
        "rounds": "で、収束値の{tolerance:.0%}以内に入るまで、あと約{rounds:.0f}{unit}です{cost}。",
        "never": "ですが、収束値の{tolerance:.0%}以内に入るまでが遅すぎて、計画にはなりません。",
        "none": "予測はしません。{reason}。",
        "cost": "（{time}{money}）",
        "hours": "{0:.1f}時間", "minutes": "{0:.0f}分",
        "fell": "これまでに{by:.3g}ナット{moved}{length}。",
        "moved": ("下がりました", "上がりました"),
        "length": "（うち{share:.0%}は回答が短くなったことによるもの）",
        "accuracy": "正答率は{before:.1%}から{after:.1%}になりました{word}。",
        "word": {"better": "（明らかに増加）", "worse": "（明らかに減少）", "no change seen": "（明確な変化なし）"},
        "unlabelled": "正解ラベルがないため、回答が良くなったかどうかは分かりません。",
        "caution": "注意：正答が増えないまま不確実性だけが下がっても、能力が上がったとは言えません。",
    },
}  # fmt: skip


def reason(why: Reason, language: Language = "en") -> str:
    return REASONS[language][why.code].format(*why.values)


def sentence(found: Analysis, language: Language = "en") -> str:
    """What a manager needs to know of one run."""
    text = TEXT[language]
    if found.forecast.abstained:
        lead = text["none"].format(reason=reason(found.forecast.abstained, language))
    else:
        lead = _forecast(found, language)
    return lead + _so_far(found, language)


def _forecast(found: Analysis, language: Language) -> str:
    text, seen = TEXT[language], found.forecast
    limit, curve = seen.limits["solver"], found.curves.values("solver")
    done = (curve[0] - curve[-1]) / (curve[0] - limit.value)
    lead = text["forecast"].format(now=curve[-1], limit=limit.value, low=limit.low, high=limit.high,
                                   done=min(1.0, max(0.0, done)))  # fmt: skip
    if seen.rounds.value == 0:
        return lead + text["there"].format(tolerance=seen.tolerance)
    if not math.isfinite(seen.rounds.value) or seen.rounds.value > 20 * max(found.curves.times):
        return lead + text["never"].format(tolerance=seen.tolerance)
    unit = UNITS[language][found.curves.unit]
    return lead + text["rounds"].format(
        rounds=math.ceil(seen.rounds.value), unit=unit, tolerance=seen.tolerance, cost=_cost(found, language)
    )


def _cost(found: Analysis, language: Language) -> str:
    if found.hours is None:
        return ""
    text, amount = TEXT[language], money.of_time(found.hours * 3600, found.curves.cost)
    time = text["hours"].format(found.hours) if found.hours >= 1 else text["minutes"].format(
        max(1, math.ceil(60 * found.hours)))  # fmt: skip
    return text["cost"].format(time=time, money="" if amount is None else ", " + money.said(amount, found.curves.cost))


def _so_far(found: Analysis, language: Language) -> str:
    text, split = TEXT[language], found.split
    share = split.by_length
    length = text["length"].format(share=min(1.0, share)) if share is not None and share > 0.2 else ""
    said = text["fell"].format(moved=text["moved"][int(split.whole > 0)], by=abs(split.whole), length=length)
    right = found.curves.values("solver_accuracy")
    if found.accuracy == "not measured" or None in (right[0], right[-1]):
        return said + text["unlabelled"]
    said += text["accuracy"].format(before=right[0], after=right[-1], word=text["word"][found.accuracy])
    return said + (text["caution"] if split.whole < 0 and found.accuracy != "better" else "")
