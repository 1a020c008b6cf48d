"""Evaluation: the summary against hand-worked rows, and the whole against the toy model."""

import pytest

from poc.config import RunConfig
from poc.configfile import load
from poc.evaluate import evaluate, summarise, transitional_share
from poc.pilot import resolve
from poc.records import Example

WORDS = ["but", "wait", "let me check", "double-check"]


def completion(status, anyhow=None, length=10, entropy=0.5, text="fine", logp=-0.1, finished=True):
    anyhow = status == "correct" if anyhow is None else anyhow
    return dict(
        text=text, status=status, formatted=status != "unparsable", correct_anyhow=anyhow, finished=finished,
        length=length, mean_logp=logp, mean_entropy=entropy,
    )  # fmt: skip


def row(gold, greedy, *sampled):
    return {"id": "x", "question": "?", "gold": gold, "greedy": greedy, "sampled": list(sampled)}


RIGHT, WRONG, LOST = (
    completion("correct"),
    completion("wrong", logp=-2.0),
    completion("unparsable", anyhow=True, finished=False),
)


def test_summary_by_hand():
    rows = [
        row("1", RIGHT, RIGHT, RIGHT, WRONG, LOST),
        row("2", WRONG, RIGHT, WRONG, WRONG, WRONG),
        row("3", WRONG, *[WRONG] * 4),
    ]
    summary = {name: entry["value"] for name, entry in summarise(rows, WORDS).items()}
    assert summary["accuracy"] == pytest.approx(3 / 12) and summary["accuracy_greedy"] == pytest.approx(1 / 3)
    assert summary["pass@1"] == pytest.approx(3 / 12)
    assert summary["pass@2"] == pytest.approx((1 - 1 / 6 + 1 / 2 + 0) / 3)  # 1 - C(n-c, 2) / C(4, 2)
    assert summary["pass@4"] == pytest.approx(2 / 3)
    assert summary["format"] == pytest.approx(11 / 12) and summary["truncated"] == pytest.approx(1 / 12)
    assert summary["accuracy_anyhow"] == pytest.approx(4 / 12)
    assert summary["auroc"] == pytest.approx((3 * 8 + 3 * 0.5) / (3 * 9))  # the unparsable one ties with the right ones


def test_without_labels_only_the_label_free_metrics():
    unlabelled = {"status": None, "formatted": None, "correct_anyhow": None}
    rows = [row(None, RIGHT | unlabelled, RIGHT | unlabelled)] * 3
    assert set(summarise(rows, WORDS)) == {"length", "truncated", "entropy", "transitional_words"}


@pytest.mark.parametrize(
    "text, share",
    [
        ("", 0),
        ("so 4", 0),
        ("But wait", 1),
        ("butter waits", 0),
        ("I say let me\ncheck it", 3 / 6),
        ("double-check", 1),
    ],
)
def test_transitional_words(text, share):
    assert transitional_share(text, WORDS) == pytest.approx(share)


def test_evaluation_repeats_and_keeps_every_completion(tiny_policy):
    config = resolve(load(RunConfig, None, ["model=lab:base", "train.max_new_tokens=6", "evaluate.samples=3"]))
    examples = [Example("a", "1+1=?", "2", "math"), Example("b", "2+1=?", "3", "math")]
    encode = lambda e: tiny_policy.tokenizer.encode(e.question)  # noqa: E731
    one, two = (evaluate(tiny_policy, examples, config, step=7, encode=encode) for _ in range(2))
    assert one["prompts"] == two["prompts"] and one["step"] == 7
    assert [len(r["sampled"]) for r in one["prompts"]] == [3, 3]
    assert len({c["text"] for r in one["prompts"] for c in r["sampled"]}) > 1
