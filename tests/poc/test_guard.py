"""Every rule by hand on both sides of its limit, hysteresis, missing values, and memory that survives JSON."""

import json
from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from poc import guard
from poc.config import Guard, PilotConfig, Rule, RunConfig
from poc.configfile import load
from poc.records import CanaryRecord, InputError
from tests.poc import traces
from tests.poc.traces import step

QUESTIONS = 64


def canary(number, right=32, agreed=48, entropy=0.5, kl=None, risen=0):
    """The first `right` of 64 questions are answered right and `agreed` alike, the others never; the entropy of `risen`
    is higher by 0.1 than that of the others, or lower if that is negative."""
    correct, alike = (tuple(float(i < n) for i in range(QUESTIONS)) for n in (right, agreed))
    entropies = tuple(entropy + (0.1 if risen > 0 else -0.1) * (i < abs(risen)) for i in range(QUESTIONS))
    return CanaryRecord(number, correct, alike, entropy, 100.0, 0.0, kl, entropies)


def judge(records, options=Guard(), label_free=True, memory=None):  # noqa: B008 (frozen)
    """Memory and decisions after steps and canaries in their order."""
    memory, decisions = memory or guard.start(label_free), []
    for record in records:
        after = guard.after_canary if isinstance(record, CanaryRecord) else guard.after_step
        memory, found = after(memory, record, options)
        decisions += found
    return memory, decisions


def tripped(records, **others):
    return [(d.rule, d.step) for d in judge(records, **others)[1]]


def steady(count=5, **values):
    return [step(i, **values) for i in range(1, count + 1)]


@pytest.mark.parametrize(
    "rule, usual, inside, beyond, patience",
    [
        ("entropy_collapse", {"entropy": 0.4}, {"entropy": 0.0601}, {"entropy": 0.0599}, 3),
        ("entropy_explosion", {"entropy": 0.4}, {"entropy": 0.799}, {"entropy": 0.801}, 3),
        ("length_collapse", {"length": 40.0}, {"length": 20.1}, {"length": 19.9}, 3),
        ("length_runaway", {"length": 40.0}, {"length": 79.9}, {"length": 80.1}, 3),
        ("repetition", {"repetition": 0.5}, {"repetition": 0.599}, {"repetition": 0.601}, 3),  # 0.2 of the other half
        ("truncation", {"truncated": 0.0}, {"truncated": 0.299}, {"truncated": 0.301}, 3),
        ("zero_variance", {"zero_variance": 0.5}, {"zero_variance": 0.899}, {"zero_variance": 0.901}, 3),
        ("charset_drift", {"foreign": 0.0}, {"foreign": 0.099}, {"foreign": 0.101}, 3),
        ("kl", {"kl": 0.1}, {"kl": 0.999}, {"kl": 1.001}, 2),
    ],
)
def test_a_step_rule_at_its_limit_and_patience(rule, usual, inside, beyond, patience):
    def run(values, count):
        return steady(**usual) + [step(i, **values) for i in range(6, 6 + count)]

    assert tripped(run(inside, 20)) == []
    assert tripped(run(beyond, patience - 1)) == []
    assert tripped(run(beyond, 20)) == [(rule, 5 + patience)]
    interrupted = [*run(beyond, patience - 1), step(8, **usual), step(9, **beyond)]
    assert tripped(interrupted) == []  # consecutive steps


def test_a_second_decision_only_after_release_below_a_softer_limit():
    high, between, released = (
        [step(i, repetition=value) for i in range(6, 12)] for value in (0.3, 0.18, 0.15)
    )  # limit 0.2, released at 0.16
    assert tripped([*steady(), *high, *between, *high]) == [("repetition", 8)]
    assert len(tripped([*steady(), *high, *released, *high])) == 2
    assert len(tripped([*steady(), *high, *between, *released[:1], *high])) == 2


def test_none_neither_trips_nor_breaks_a_row():
    low, skipped = [step(i, entropy=0.01) for i in range(6, 9)], step(7, entropy=None, kl=None, reward=None)
    assert tripped([*steady(), low[0], skipped, low[1], skipped]) == []
    assert tripped([*steady(), low[0], skipped, low[1], skipped, low[2]]) == [("entropy_collapse", 8)]
    assert tripped([skipped] * 9 + low) == []  # no baseline yet
    assert judge([skipped, *steady(5, entropy=0.4)])[0].first["entropy"] == (0.4,) * 5


def test_a_baseline_of_zero_or_one_judges_nothing():
    assert tripped(steady(5, entropy=0.0) + [step(i, entropy=1.0) for i in range(6, 12)]) == []
    assert tripped(steady(20, truncated=1.0, foreign=1.0, repetition=1.0, zero_variance=1.0)) == []


def test_kl_of_the_canary_needs_one_look_and_an_unmeasured_step_leaves_it_alone():
    assert tripped([canary(0, kl=0.0), *steady(), canary(5, kl=0.99)]) == []
    assert tripped([canary(0, kl=0.0), *steady(), canary(5, kl=1.01), step(6), canary(10, kl=2.0)]) == [("kl", 5)]


def looks(*right, first=0, **others):
    return [canary(first + 5 * i, right=n, **others) for i, n in enumerate(right)]


def test_canary_drop_three_looks_or_one_sure_one():
    # k of 64 questions lost: t = sqrt(63 k / (64 - k)); limit 2.3, sure from 3.91
    assert tripped(looks(32, 32, 32, 28, 28, 28, 28)) == []  # 4 lost: at most 2^-4 by flipping signs, 1.5 errors
    assert tripped(looks(32, 32, 32, 24, 24)) == []  # 8 lost: 2.7
    assert tripped(looks(32, 32, 32, 24, 24, 24, 24)) == [("canary_drop", 25)]
    assert tripped(looks(32, 32, 32, 24, 24, 32, 24, 24)) == []
    assert tripped(looks(32, 32, 32, 17)) == [("canary_drop", 15)]  # 15 lost: 4.0
    assert tripped(looks(32, 32, 32, 18)) == []  # 14 lost: 3.8


def test_canary_drop_compares_with_the_best_so_far():
    assert tripped(looks(10, 20, 40, 40, 40, 25, 25, 25)) == [("canary_drop", 25)]  # far above the start
    assert tripped(looks(40, 25)) == [("canary_drop", 5)]  # before three looks: with the start
    assert tripped(looks(40, 30, 24)) == [("canary_drop", 10)]


def test_the_message_names_the_reward_that_rose_meanwhile():
    falls = [*looks(32, 32, 32), canary(15, right=10)]

    def run(late):
        rewards = [*[1.0, 1.1] * 5, *[late, late + 0.1] * 3]
        steps = [step(i, reward=value) for i, value in enumerate(rewards, 1)]
        return judge([falls[0], *steps[:5], falls[1], *steps[5:10], falls[2], *steps[10:], falls[3]])[1][0]

    assert "while the reward rose from 1.06 to 2.06" in run(2.0).message
    assert "reward" not in run(1.0).message
    assert run(2.0).values["reward"] > run(2.0).values["reward_at_best"]
    assert "canary accuracy 0.156, best 0.500 about step 5" in run(1.0).message and "\n" not in run(1.0).message


def unlabelled(*looks):
    return [replace(look, correct=(), step=5 * i) for i, look in enumerate(looks)]


def test_agreement_drop_needs_no_label_and_judges_label_free_runs_only():
    run = unlabelled(*[canary(0, agreed=agreed) for agreed in (48, 48, 48, 38, 38, 38)])
    assert tripped(run) == [("agreement_drop", 25)] and tripped(run, label_free=False) == []


def test_past_peak_when_entropy_has_risen_from_its_lowest_for_three_evaluations():
    # k of 64 questions up by 0.1: at most the p of 2^-k: 3 give 1.15 standard errors, 2 give 0.67; limit 1
    rise = lambda *risen: unlabelled(*[canary(0, risen=n) for n in risen])  # noqa: E731
    assert tripped(rise(0, 3, 3)) == [] and tripped(rise(0, 3, 3, 3)) == [("past_peak", 15)]
    assert tripped(rise(0, 2, 2, 2, 2, 2)) == []
    assert tripped(rise(0, 3, 3, 0, 3, 3)) == []
    assert tripped(rise(0, 3, 3, 3), label_free=False) == []
    assert tripped(rise(0, -20, -20, -20, 0, 0, 0)) == [("past_peak", 30)]  # from the lowest, not from the start
    assert tripped(rise(*range(0, -60, -4))) == []  # what becomes more and more certain goes on


def test_past_peak_only_warns_where_labels_are_looked_at():
    run = [replace(canary(0, risen=n), step=5 * i) for i, n in enumerate((0, 3, 3, 3))]
    action = lambda looks, **options: [d.action for d in judge(looks, options=Guard(**options))[1]]  # noqa: E731
    assert action(run) == ["warn"] and action(unlabelled(*run)) == ["rollback"]
    assert action(run, canary_drop={"action": "off"}) == ["rollback"]


def test_a_run_that_nothing_ended_goes_back_if_its_end_is_worse_than_its_best():
    def late(looks, labels, options=Guard(), label_free=True):  # noqa: B008
        memory, decisions = judge(looks, options, label_free)
        assert not [d for d in decisions if d.action != "warn"]
        return guard.at_end(memory, options, labels, 99)

    fallen = looks(20, 30, 30, 30, 26, 25, 25)  # five questions lost: 1.9 standard errors, no drop of 2.3
    found = late(fallen, True)
    assert (found.rule, found.action, found.step, found.values["best_step"]) == ("canary_drop", "rollback", 99, 10.0)
    assert late(looks(20, 30, 30, 30, 28, 28, 28), True) is None
    assert late(looks(20, 25, 30, 30, 30), True) is None  # the best is the end
    assert late(fallen, True, Guard(action="stop")) is None
    risen = unlabelled(*[canary(0, risen=n) for n in (0, -20, -20, -20, -17, -17)])
    assert late(risen, False).rule == "past_peak" and late(risen, False).values["best_step"] == 10.0
    assert late(risen, False, label_free=False) is None
    assert late(unlabelled(*[canary(0, risen=n) for n in (0, -5, -9, -14, -20)]), False) is None


def test_best_step_by_accuracy_is_the_start_unless_something_is_better():
    best = lambda records: guard.best_step(judge(records)[0], Guard(), labels=True)  # noqa: E731
    assert best([]) == 0
    assert best(looks(30, 33, 33, 33, 20)) == 0  # three questions more prove nothing: 2^-3 is 1.2 standard errors
    assert best(looks(30, 34, 34, 34, 20)) == 10
    assert best(looks(20, 30, 40, 42, 40, 20, 20)) == 15  # the middle of 40, 42, 40
    assert best(looks(20, 40, 40, 40, 40, 40)) == 10  # the earliest of equals
    assert best(looks(30, 20, 10, 5)) == 0


def test_best_step_without_labels_is_where_the_entropy_was_lowest():
    def best(*risen):
        return guard.best_step(judge(unlabelled(*[canary(0, risen=n) for n in risen]))[0], Guard(), labels=True)

    assert best(0, -4, -8, -4, 0) == 10
    assert best(0, -4, -8, -12, -16) == 15  # the middle of the last three
    assert best(0, 1, 2, 1, 0) == 0  # never below the start


def test_what_a_rule_objects_to_is_no_candidate():
    collapsed = [step(i, entropy=0.01) for i in range(16, 19)]
    sure = [canary(20, 64, 64, 0.01), canary(25, 64, 64, 0.01), canary(30, 64, 64, 0.01)]
    memory, _ = judge([*looks(20, 30, 30), *steady(15), *collapsed, *sure])
    assert guard.best_step(memory, Guard(), labels=True) == 5 and guard.best_step(memory, Guard(), labels=False) == 0
    allowed = Guard(entropy_collapse={"action": "warn"})
    memory, _ = judge([*looks(20, 30, 30), *steady(15), *collapsed, *sure], options=allowed)
    assert guard.best_step(memory, allowed, labels=True) == guard.best_step(memory, allowed, labels=False) == 25


def test_standard_errors_by_hand():
    assert guard.standard_errors([0.5] * 4, [0.5] * 4) == 0.0
    assert guard.standard_errors([1.0, 1.0], [0.0, 0.0]) == pytest.approx(0.6745, abs=1e-3)  # 2^-2
    assert guard.standard_errors([1.0], [0.0]) == guard.standard_errors([0.0], [1.0]) == 0.0  # 2^-1 says nothing
    up, down = [0.5, 0.75, 0.25, 1.0] * 16, [0.5, 0.25, 0.25, 0.75] * 16
    expected = stats.norm.isf(stats.ttest_rel(up, down, alternative="greater").pvalue)
    assert guard.standard_errors(up, down) == -guard.standard_errors(down, up) == pytest.approx(expected)


def test_actions():
    run = [*steady(), *[step(i, repetition=0.9) for i in range(6, 9)]]
    actions = lambda options: [d.action for d in judge(run, options)[1]]  # noqa: E731
    assert actions(Guard()) == ["rollback"]
    assert actions(Guard(action="stop")) == ["stop"] and actions(Guard(action="warn")) == ["warn"]
    assert actions(Guard(action="off")) == [] == actions(Guard(repetition={"action": "off"}))
    assert actions(Guard(action="stop", repetition={"action": "warn"})) == ["warn"]


def test_a_decision_says_what_was_measured():
    _, (decision,) = judge([*steady(5, entropy=0.4), *[step(i, entropy=0.01) for i in range(6, 9)]])
    assert decision.message == (
        "entropy 0.01 is 0.025 of the first steps' 0.4 (limit 0.15), since step 6: the policy hardly varies any more "
        "and has little left to learn from"
    )
    assert decision.values == {"value": pytest.approx(0.025), "limit": 0.15, "measured": 0.01, "baseline": 0.4}


def events(trace):
    """Steps and canaries in the order in which a run sees them."""
    looks = {look.step: [look] for look in trace.canaries}
    return [*looks[0], *(x for record in trace.steps for x in [record, *looks.get(record.step, [])])]


@settings(max_examples=40, deadline=None)
@given(st.sampled_from(traces.FAILURES), st.integers(0, 1000), st.integers(0, 120))
def test_memory_through_json_decides_the_same(failure, seed, cut):
    run = events(traces.failing(failure, seed))
    early, first = judge(run[:cut])
    restored = guard.Memory.from_json(json.loads(json.dumps(asdict(early))))
    assert restored == early
    assert judge(run[cut:], memory=restored) == judge(run[cut:], memory=early)
    assert first + judge(run[cut:], memory=restored)[1] == judge(run)[1]


def test_memory_does_not_grow():
    rng, trace = np.random.default_rng(0), traces.healthy(0)
    sizes = []
    memory = guard.start(True)
    for number in range(1, 2000):
        memory, _ = guard.after_step(memory, step(number, entropy=float(rng.uniform(0.4, 0.6))), Guard())
        if number % 5 == 0:
            memory, _ = guard.after_canary(memory, replace(trace.canaries[number % 20], step=number), Guard())
        sizes.append(len(json.dumps(asdict(memory))))
    assert max(sizes) < 15_000 and max(sizes[-500:]) < 1.2 * max(sizes[100:600])


def test_the_guard_changes_no_memory_it_was_given():
    run = events(traces.failing("repetition", 1))
    memory, _ = judge(run[:60])
    before = json.dumps(asdict(memory))
    judge(run[60:], memory=memory)
    assert json.dumps(asdict(memory)) == before


def test_a_rule_given_in_part_keeps_its_own_defaults():
    given = load(RunConfig, None, ["guard.zero_variance.limit=0.5", "guard.canary_drop={patience: 1}"]).guard
    assert given.zero_variance == Rule(limit=0.5, patience=3, action="warn") and given.canary_drop.limit == 2.3
    assert given.kl == Guard().kl
    assert load(RunConfig, None, ["guard.action=off", "guard.kl.action=off"]).guard.action == "off"  # YAML: false
    pilot = load(PilotConfig, None, ["guard.kl.limit=3"])
    assert pilot.run_config(pilot.arms[0], 0).guard == Guard(kl={"limit": 3.0})


@pytest.mark.parametrize(
    "override, message",
    [
        ("guard.entropi_collapse.limit=1", "did you mean 'entropy_collapse'?"),
        ("guard.entropy_collapse.limt=0.1", "'guard.entropy_collapse.limt'; did you mean 'limit'?"),
        ("guard.entropy_collapse.limit=1", "guard.entropy_collapse.limit = 1: it is a share of the first steps' mean"),
        ("guard.length_runaway.limit=0.9", "guard.length_runaway.limit = 0.9: it is a multiple"),
        ("guard.truncation.limit=1", "guard.truncation.limit = 1: it is a share, below 1"),
        ("guard.kl.limit=0", "guard.kl.limit = 0"),
        ("guard.kl.patience=0", "guard.kl.patience = 0"),
        ("guard.kl.action=halt", "guard.kl.action = 'halt'"),
        ("guard.action=true", "guard.action = True"),
        ("guard.kl=1", "guard.kl = 1"),
    ],
)
def test_a_mistake_in_a_rule_is_one_line(override, message):
    with pytest.raises(InputError) as error:
        load(RunConfig, None, [override])
    assert message in str(error.value) and "\n" not in str(error.value)
