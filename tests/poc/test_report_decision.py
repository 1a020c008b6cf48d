"""Ship or not: the rules as a truth table, stages, risks, sizes and costs, each against a case worked out by hand."""

import importlib.util
import itertools
import json
from pathlib import Path

import pytest
import yaml

from poc.config import Arm, Cost, PilotConfig
from poc.report import cards, costs, decision, risks, verdicts
from poc.report.arms import at_confidence, collect
from poc.report.decision import MIN_USEFUL, Facts, decisions, questions_needed, word_for
from poc.report.language import load
from poc.report.read import read
from poc.report.verdicts import MIN_MOVED, MIN_PROMPTS, Verdict
from poc.statistics import Interval

_spec = importlib.util.spec_from_file_location("fake_runs", Path(__file__).with_name("fake_runs.py"))
fake_runs = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fake_runs)

EN = load("en")
UP, NONE, DOWN, TINY, FEW = (
    Interval(0.1, 0.05, 0.15, 99), Interval(0.01, -0.1, 0.1, 99), Interval(-0.1, -0.2, -0.05, 99),
    Interval(0.01, 0.002, 0.018, 9999), Interval(0.5, 0.2, 0.8, 9),
)  # fmt: skip
HELPS, HURTS, OPEN = Verdict("helps"), Verdict("hurts"), Verdict("no evidence")
FORMAT, CLOSE = Verdict("helps", ("format only",)), Verdict("helps", ("not clear of control",))
DRIFT = Verdict("no evidence", ("no more than control",))
SHIP, DONT, MORE = "ship", "do not ship", "not enough evidence"


@pytest.mark.parametrize(
    ("verdict", "change", "others", "word", "reason"),
    [
        (HELPS, UP, {}, SHIP, "helps"),
        (HELPS, UP, {"serious": True}, DONT, "serious risk"),
        (HELPS, UP, {"ended": False}, MORE, "not ended"),
        (HELPS, UP, {"back_at_start": True}, DONT, "nothing to ship"),
        (HELPS, UP, {"moved": MIN_MOVED - 1}, MORE, "few moved"),
        (HELPS, FEW, {}, MORE, "few questions"),
        (HELPS, FEW, {"serious": True}, MORE, "few questions"),
        (HURTS, FEW, {}, MORE, "few questions"),
        (OPEN, FEW, {"back_at_start": True}, DONT, "nothing to ship"),
        (HELPS, TINY, {}, DONT, "no useful gain"),
        (FORMAT, UP, {}, MORE, "format only"),
        (CLOSE, UP, {}, MORE, "control"),
        (DRIFT, UP, {}, MORE, "control"),
        (DRIFT, UP, {"serious": True}, DONT, "serious risk"),
        (HURTS, DOWN, {}, DONT, "hurts"),
        (HURTS, DOWN, {"serious": True}, DONT, "hurts"),
        (OPEN, NONE, {}, MORE, "unclear"),
        (OPEN, NONE, {"serious": True}, DONT, "serious risk"),
        (OPEN, NONE, {"ended": False}, MORE, "not ended"),
        (OPEN, TINY._replace(low=-0.01), {}, DONT, "no useful gain"),
        (OPEN, NONE._replace(low=None, high=None), {}, MORE, "unclear"),
        (Verdict("not measured"), None, {}, MORE, "not measured"),
        (Verdict("not measured"), None, {"serious": True}, MORE, "not measured"),
    ],
)
def test_truth_table(verdict, change, others, word, reason):
    assert word_for(Facts(verdict, change, **{"moved": 50, **others})) == (word, reason)


def test_nothing_ships_unless_everything_is_right():
    """All combinations: ship if and only if it helps, cleanly, on enough questions, at the end of its run."""
    words = (HELPS, HURTS, OPEN, FORMAT, CLOSE, DRIFT, Verdict("helps", ("fell from peak",)))
    table = itertools.product(words, (UP, NONE, DOWN, TINY, FEW, None), (5, 50), *[(False, True)] * 3)
    shipped = set()
    for verdict, change, moved, back, serious, ended in table:
        facts = Facts(verdict, change, moved, back, serious, ended)
        word, reason = word_for(facts)
        few = change is not None and not back and (change.n < MIN_PROMPTS or moved < MIN_MOVED)
        assert (word == MORE) or not few, facts
        assert f"reason.{reason}" in EN.text or reason == "not measured"
        if word == SHIP:
            shipped.add((verdict.remarks, moved))
            assert verdict.word == "helps" and change.high >= MIN_USEFUL and ended and not back and not serious
    assert shipped == {
        ((), 50),
        (("fell from peak",), 50),
    }  # a fall from the peak is a serious risk: not in Facts twice


@pytest.mark.parametrize(
    ("gain", "deviation", "confidence", "needed"),
    [
        (0.05, 0.5, 0.95, 385),  # (1.95996 x 0.5 / 0.05)^2 = 384.1
        (0.10, 0.4, 0.95, 62),  # (1.95996 x 0.4 / 0.10)^2 = 61.5
        (0.10, 0.4, 0.99, 107),  # (2.57583 x 0.4 / 0.10)^2 = 106.2
        (0.00, 0.3, 0.95, 865),  # to leave out 2 points: (1.95996 x 0.3 / 0.02)^2 = 864.3
        (-0.02, 0.3, 0.95, 217),  # the same from below: room is 4 points: 216.1
    ],
)
def test_how_many_questions_settle_it(gain, deviation, confidence, needed):
    assert questions_needed(gain, deviation, confidence) == needed


def of(folder, label):
    return next(j for j in collect(read(folder)) if j.arm.label == label)


def pilot_of(folder, arms: dict, prompts=60, **config):
    """A pilot of (model, reward mix) -> accuracies."""
    listed = [Arm(model=model, reward=dict(reward)) for model, reward in arms]
    named = {a.label: curve for a, curve in zip(listed, arms.values(), strict=True)}
    return fake_runs.write_pilot(folder, PilotConfig(arms=listed, **config), named, prompts)


BASE = ("base", (("trajectory_entropy", 1.0),))
COIN = ("base", (("random", 1.0),))
TUNED = ("instruct", (("majority_vote", 1.0),))
MIXED = ("base", (("majority_vote", 1.0), ("verifiable", 1.0)))
LABELS = ("instruct", (("verifiable", 1.0),))


def test_stages_and_who_is_no_candidate(tmp_path):
    style = ("base", (("format", 1.0),))
    arms = dict.fromkeys([BASE, COIN, style, TUNED, MIXED, LABELS], (0.4, 0.4))
    judged = collect(read(pilot_of(tmp_path / "p", arms, 8)))
    assert [decision.stage(j.arm) for j in judged] == [1, None, None, 2, 3, 3]
    found = {d.stage: [c.arm.label for c in d.candidates] for d in decisions(judged)}
    assert found[1] == ["base-trajectory_entropy"] and len(found[3]) == 2
    off = collect(read(pilot_of(tmp_path / "off", {LABELS: (0.4, 0.4), MIXED: (0.4, 0.4)}, 8, guard={"action": "off"})))
    assert [decision.stage(j.arm) for j in off] == [None, 3]  # labels alone without a guard: no stage


def test_hybrids_without_labels_are_label_free(tmp_path):
    judged = collect(read(fake_runs.label_pilot(tmp_path / "p", 8)))
    stages = {j.arm.label: decision.stage(j.arm) for j in judged}
    assert stages["base-self_certainty-verifiable-labels0"] == 1
    assert stages["base-self_certainty-verifiable-labels0.1"] == 3


def test_a_stage_without_arms_says_what_to_run(tmp_path):
    found = decisions(collect(read(pilot_of(tmp_path / "p", {BASE: (0.4, 0.5)}, 8))))
    assert [d.word for d in found][1:] == ["not tried", "not tried"]
    card = cards.card(found[1], EN)
    assert card["word"] == "Not tried" and "poc pilot --set" in card["next"] and "model: instruct" in card["next"]


def test_commands_of_stages_not_tried_are_configurations():
    for stage in (1, 2, 3):
        options = yaml.safe_load(cards.TRY[stage].partition("--set '")[2].removesuffix("'").partition("=")[2])
        config = PilotConfig(arms=options)
        assert any(a.reward == {"random": 1.0} for a in config.arms)  # with its control


def test_the_best_of_several_is_named_and_pays_for_it(tmp_path):
    second = ("base", (("majority_vote", 1.0),))
    folder = pilot_of(tmp_path / "p", {BASE: (0.4, 0.75), second: (0.4, 0.55), COIN: (0.4, 0.4)}, 90)
    first = decisions(collect(read(folder)))[0]
    assert first.word == "ship" and first.named.arm.label == "base-trajectory_entropy"
    assert first.confidence == pytest.approx(0.975) and len(first.candidates) == 2
    plain = of(folder, "base-trajectory_entropy").change
    assert first.named.change.low < plain.low < plain.high < first.named.change.high
    assert "97.5\u00a0% interval" in cards.card(first, EN)["change_text"]


def test_the_named_arm_is_one_that_can_ship_before_one_that_gained_more(tmp_path):
    second = ("base", (("majority_vote", 1.0),))
    folder = pilot_of(tmp_path / "p", {BASE: (0.4, 0.85), second: (0.4, 0.7), COIN: (0.4, 0.4)}, 90)
    told = [{"rule": "kl", "action": "warn", "step": 40}]
    edit(folder / "arms/base-trajectory_entropy-seed0/outcome.json", guard=told)
    first = decisions(collect(read(folder)))[0]
    assert (first.word, first.named.arm.label) == ("ship", "base-majority_vote")


def edit(path: Path, **changes) -> None:
    fake_runs.write_json(path, json.loads(path.read_text()) | changes)


def test_not_enough_evidence_at_small_n_with_the_number_it_takes(tmp_path):
    found = decisions(collect(read(pilot_of(tmp_path / "p", {BASE: (0.4, 0.75)}, 9))))[0]
    assert (found.word, found.reason) == ("not enough evidence", "few questions") and found.needed >= MIN_PROMPTS
    assert f"at least {cards.rounded_up(found.needed)} questions instead of 9" in cards.reason(found, EN)
    assert f"data.holdout={cards.rounded_up(found.needed)}" in cards.next_step(found, EN)
    assert [cards.rounded_up(n) for n in (9, 385, 1001, 12345)] == [9, 390, 1100, 13000]


def test_needed_is_worked_out_from_the_differences(tmp_path):
    folder = pilot_of(tmp_path / "p", {BASE: (0.40, 0.45)}, 40)
    found = decisions(collect(read(folder)))[0]
    change = list(verdicts.change_per_prompt(*of(folder, "base-trajectory_entropy").arm.before_and_after(
        lambda c: c.correct)).values())  # fmt: skip
    mean = sum(change) / len(change)
    deviation = (sum((x - mean) ** 2 for x in change) / (len(change) - 1)) ** 0.5
    assert found.reason == "unclear" and found.needed == questions_needed(mean, deviation, found.confidence)


def test_serious_risks(tmp_path):
    folder = pilot_of(tmp_path / "p", {BASE: (0.4, 0.75), COIN: (0.4, 0.4)}, 60)
    run = folder / "arms/base-trajectory_entropy-seed0"
    kinds = lambda: [r.kind for r in risks.risks(of(folder, "base-trajectory_entropy"))]  # noqa: E731
    assert kinds() == ["one seed"]
    edit(run / "outcome.json", guard=[{"rule": "past_peak", "action": "warn", "step": 5}, {"rule": "kl"}, 7])
    assert kinds() == ["one seed"]  # past_peak only warns where labels decide; the others are no decisions
    edit(run / "outcome.json", guard=[{"rule": "charset_drift", "action": "warn", "step": 5}])
    assert kinds() == ["guard", "one seed"]
    edit(run / "outcome.json", guard=[], status="stopped", kept=None)
    assert kinds() == ["stopped", "one seed"] and decisions(collect(read(folder)))[0].reason == "serious risk"


def test_what_the_guard_undid_is_told_and_is_no_serious_risk(tmp_path):
    folder = pilot_of(tmp_path / "p", {BASE: (0.4, 0.6, 0.75, 0.2), COIN: (0.4, 0.4)}, 60)
    run = folder / "arms/base-trajectory_entropy-seed0"
    at_peak = json.loads((run / "evaluations/step-000040.json").read_text())
    fake_runs.write_json(run / "evaluations/kept/step-000040.json", at_peak)
    edit(
        run / "outcome.json",
        guard=[{"rule": "canary_drop", "action": "rollback", "step": 60}],
        status="stopped",
        kept=40,
    )
    found = decisions(collect(read(folder)))[0]
    assert found.word == "ship" and [r.kind for r in found.risks] == ["undone", "one seed"]
    assert "step-000040" in cards.next_step(found, EN)
    start = json.loads((run / "evaluations/step-000000.json").read_text())
    fake_runs.write_json(run / "evaluations/kept/step-000000.json", start)
    edit(run / "outcome.json", kept=0)
    assert decisions(collect(read(folder)))[0].reason == "nothing to ship"


def test_foreign_script_and_collapse(tmp_path):
    folder = pilot_of(tmp_path / "p", {BASE: (0.4, 0.75)}, 24)
    run = folder / "arms/base-trajectory_entropy-seed0"
    lines = [json.loads(line) | {"foreign": 0.02 if k < 50 else 0.14} for k, line in
             enumerate((run / "steps.jsonl").read_text().splitlines())]  # fmt: skip
    (run / "steps.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    last = json.loads((run / "evaluations/step-000060.json").read_text())
    last["summary"]["entropy"]["value"] = 0.14 * 0.72
    fake_runs.write_json(run / "evaluations/step-000060.json", last)
    found = {r.kind: r.amount for r in risks.risks(of(folder, "base-trajectory_entropy"))}
    assert found["foreign script"] == pytest.approx(0.12 / 0.98) and found["collapse"] == pytest.approx(0.14)


def test_costs_are_hours_labels_and_money_by_hand(tmp_path):
    prices = {"per_hour": 3.6, "watts": 100.0, "tariff": 0.2, "per_label": 0.5, "currency": "EUR"}
    folder = pilot_of(tmp_path / "p", {MIXED: (0.4, 0.7), BASE: (0.4, 0.7)}, 24, cost=prices, seeds=[0, 1])
    one, _, hybrid = decisions(collect(read(folder)))
    found = costs.spent(hybrid)
    assert found.seconds == pytest.approx(51.3 + 52.3) and found.again == pytest.approx(51.8)
    assert found.money == pytest.approx(103.6 / 3600 * 3.62)  # 3.60 and 0.1 kW at 0.20 an hour
    assert (found.used, found.saved, found.money_labels) == (512, 0, 256.0)
    assert found.break_even == pytest.approx(103.6 / 3600 * 3.62 / 0.5)
    free = costs.spent(one)
    assert (free.used, free.saved, free.money_saved) == (0, 512, 256.0)
    told = dict(cards.card(hybrid, EN)["rows"])
    assert "0.104 EUR" in told["Cost so far"][0] and "512 labels (256.00 EUR) used" in told["Cost so far"][1]
    assert told["Cost so far"][-1] == "Machine time costs less than one label."


def test_without_prices_there_are_hours_and_how_to_set_them(tmp_path):
    folder = pilot_of(tmp_path / "p", {BASE: (0.4, 0.7)}, 24)
    told = dict(cards.card(decisions(collect(read(folder)))[0], EN)["rows"])
    assert told["Cost so far"][0] == "51 s of this machine" and told["Going on"] == [
        "51 s for the same number of steps again"
    ]
    broken = of(folder, "base-trajectory_entropy").arm
    broken.first.config["cost"] = {"per_hour": "free"}
    assert costs.prices(broken) == Cost()


def test_five_sentences_say_what_the_numbers_say(tmp_path):
    folder = pilot_of(tmp_path / "p", {BASE: (0.4, 0.75), TUNED: (0.6, 0.2), COIN: (0.4, 0.4)}, 60)
    judged = collect(read(folder))
    said = cards.phrases(decisions(judged), judged, lab=False, say=EN)
    assert len(said) == 5 and "best result is" in said[1] and "base-trajectory_entropy" in said[1]
    lost = of(folder, "instruct-majority_vote").change.value
    assert "instruct-majority_vote" in said[2] and f"{-100 * lost:.1f} points below its start" in said[2]
    assert "toy" not in said[3] and "toy" in cards.phrases(decisions(judged), judged, lab=True, say=EN)[3]


def test_a_run_alone_has_a_card_of_its_own(tmp_path):
    run = fake_runs.run(tmp_path / "run", PilotConfig().arms[0], 0, 24)
    edit(run / "environment.json", role=None)
    assert [d.stage for d in decisions(collect(read(run)))] == [1, 2, 3, 0]


def test_a_higher_confidence_can_take_a_verdict_back(tmp_path):
    judged = of(pilot_of(tmp_path / "p", {BASE: (0.4, 0.5)}, 60), "base-trajectory_entropy")
    wide = at_confidence(judged.arm, None, 0.9999)
    assert judged.verdict.word == "helps" and wide.verdict.word == "no evidence"


def test_a_gain_without_a_control_is_told(tmp_path):
    alone = of(pilot_of(tmp_path / "p", {BASE: (0.4, 0.75)}, 24), "base-trajectory_entropy")
    assert [r.kind for r in risks.risks(alone)] == ["no control", "one seed"]


def test_what_was_never_started_was_not_tried(tmp_path):
    folder = fake_runs.pilot(tmp_path / "p", 8, arms=("base-verifiable",))  # one of eight
    judged = collect(read(folder))
    assert "We tried 1 arm and" in cards.phrases(decisions(judged), judged, lab=False, say=EN)[0]
    for path in (folder / "arms/base-verifiable-seed0/evaluations").iterdir():
        path.unlink()
    judged = collect(read(folder))
    assert "none was measured" in cards.phrases(decisions(judged), judged, lab=False, say=EN)[0]
