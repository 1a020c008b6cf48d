"""What the prompt says of the score is what the score does: the text is read back and applied."""

import re
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poc.lab.tokenizer import CHARACTERS
from poc.motivation import motivation
from poc.records import Episode, Example, Group, InputError, Verdict
from poc.rewards.internal import self_certainty
from poc.rewards.knights import knights_knaves
from poc.rewards.rules import Rule, RuleReward
from poc.rewards.verifiable import format_reward, verifiable

KNIGHTS_TAGS, KNIGHTS_MARK = knights_knaves("tags"), knights_knaves("mark")
REWARDS = {"tags": KNIGHTS_TAGS, "mark": KNIGHTS_MARK, "verifiable": verifiable, "format": format_reward}
each_reward = pytest.mark.parametrize("reward", REWARDS.values(), ids=REWARDS)
LINE = re.compile(r"(answer|format) (0|[+-][0-9.]+(?:e[+-][0-9]+)?): (.+)")
GOLD = "Ann knight, Bob knave"
TAGGED = "<think>a</think><answer>Ann is a {}, Bob is a knave</answer>"
TEXTS = (
    "#Ann knight, Bob knave",
    "#Ann knave, Bob knave",
    "#",
    "",
    *(TAGGED.format(x) for x in ("knight", "knave", "?")),
)


def group():
    """Completions that fire every rule of every reward at least once."""
    statuses = ("correct", "wrong", "unparsable", "unparsable", "correct", "wrong", "unparsable")
    episodes = tuple(
        Episode((1,), text, True, (-1.0,), (0.5,), (2.0,), formatted=i < 3, verdict=Verdict(status, i < 3, False))
        for i, (text, status) in enumerate(zip(TEXTS, statuses, strict=True))
    )
    return Group(Example("q1", "?", GOLD, "logic"), (1,), episodes)


def told(text):
    """{words: (aspect, value)} of a motivation, by a reader that knows nothing of rules."""
    heading, *lines, ending = text.split("\n")
    assert (heading, ending) == ("Evaluation Scoring Rules:", "The final score is the sum.")
    found = [LINE.fullmatch(line).groups() for line in lines]
    assert len({words for *_, words in found}) == len(found), "two lines in the same words"
    return {words: (aspect, float(value)) for aspect, value, words in found}


def with_value(reward, i, value):
    rules = list(reward.rules)
    rules[i] = replace(rules[i], value=value)
    return replace(reward, rules=tuple(rules))


def test_the_text_for_the_lab_models():
    assert motivation([KNIGHTS_MARK], "full").split("\n") == [
        "Evaluation Scoring Rules:",
        "answer +2: after the only #, up to the end, a list like Ann knight, Bob knave: everybody once, all right",
        "answer -1.5: such a list, not all right",
        "answer -2: no such list",
        "format +1: exactly one # in the text",
        "format -1: no # or several",
        "The final score is the sum.",
    ]
    assert len(motivation([KNIGHTS_MARK], "full")) <= 350


@each_reward
def test_full_names_every_rule_with_its_value(reward):
    lines = told(motivation([reward], "full"))
    assert lines == {rule.when: (rule.aspect, rule.value) for rule in reward.rules}


def test_several_rewards_are_told_in_order_and_others_passed_over():
    lines = told(motivation([verifiable, self_certainty, format_reward], "full"))
    assert list(lines) == [rule.when for rule in verifiable.rules + format_reward.rules]


@each_reward
def test_every_rule_fires_and_changes_text_and_score_together(reward):
    g = group()
    for i, rule in enumerate(reward.rules):
        changed = with_value(reward, i, rule.value + 0.125)
        assert told(motivation([changed], "full"))[rule.when][1] == rule.value + 0.125
        assert told(motivation([changed], "full")) != told(motivation([reward], "full"))
        moved = [new - old for new, old in zip(changed(g), reward(g), strict=True)]
        assert moved == [0.125 * (rule.key in reward.fired(g, episode)) for episode in g.episodes]
        assert any(moved)


@settings(max_examples=60, deadline=None)
@given(st.sampled_from(list(REWARDS.values())), st.data())
def test_the_text_read_back_scores_like_the_object(reward, data):
    for i in range(len(reward.rules)):
        reward = with_value(reward, i, data.draw(st.floats(allow_nan=False, allow_infinity=False) | st.integers(-9, 9)))
    lines, words, g = told(motivation([reward], "full")), {r.key: r.when for r in reward.rules}, group()
    by_the_text = [sum(lines[words[key]][1] for key in reward.fired(g, episode)) for episode in g.episodes]
    assert by_the_text == reward(g)


@each_reward
def test_adverse_negates_every_value_and_nothing_else(reward):
    full, adverse = told(motivation([reward], "full")), told(motivation([reward], "adverse"))
    assert adverse == {words: (aspect, -value) for words, (aspect, value) in full.items()}
    assert "-0:" not in motivation([reward], "adverse")


@pytest.mark.parametrize("rewards", [[KNIGHTS_TAGS], [KNIGHTS_MARK], [verifiable, format_reward]])
def test_score_only_tells_the_answer_rules_alone(rewards):
    full, score_only = told(motivation(rewards, "full")), told(motivation(rewards, "score_only"))
    assert score_only == {words: line for words, line in full.items() if line[0] == "answer"}
    assert 0 < len(score_only) < len(full)


@each_reward
def test_no_score_depends_on_the_condition(reward):
    before = reward(group())
    for condition in ("full", "adverse", "none"):
        motivation([reward], condition)
        assert reward(group()) == before


def test_none_and_no_rewards_give_no_text():
    assert motivation([KNIGHTS_MARK], "none") == motivation([self_certainty], "none") == motivation([], "full") == ""


@pytest.mark.parametrize(
    "rewards, condition, match",
    [
        ([], "ful", "motivation.condition: unknown 'ful'; valid: full, score_only, adverse, none"),
        ([self_certainty], "full", "full needs a reward with rules: verifiable, format or knights_knaves"),
        ([format_reward], "score_only", "needs a reward with rules about the answer: verifiable or knights_knaves"),
    ],
)
def test_what_cannot_be_told_is_an_input_error(rewards, condition, match):
    with pytest.raises(InputError, match=match):
        motivation(rewards, condition)


@each_reward
def test_the_lab_tokenizer_knows_every_character(reward):
    assert set(motivation([reward], "full")) <= set(CHARACTERS)


@pytest.mark.parametrize(
    "key, aspect, when, value",
    [("a", "style", "x", 1.0), ("a", "answer", "", 1.0), ("a", "answer", "x\ny", 1.0), ("a", "answer", "x\u2028y", 1.0)]
    + [("a", "format", "x", value) for value in (float("nan"), float("inf"), float("-inf"))],
)
def test_a_rule_that_cannot_be_told_or_added_is_refused(key, aspect, when, value):
    with pytest.raises(ValueError, match="rule a: "):
        Rule(key, aspect, when, value)


def test_a_reward_refuses_two_rules_of_one_key_and_a_key_without_rule():
    rule = Rule("a", "answer", "x", 1.0)
    with pytest.raises(ValueError, match="reward mine: two rules have one key in a, a"):
        RuleReward("mine", (rule, rule), lambda group, episode: ())
    with pytest.raises(ValueError, match="reward mine: rule 'b' fired, but there are only a"):
        RuleReward("mine", (rule,), lambda group, episode: ("a", "b"))(group())


def test_format_needs_no_label_and_verifiable_does():
    unlabelled = replace(group(), episodes=tuple(replace(e, verdict=None) for e in group().episodes))
    assert format_reward(unlabelled) == [1, 1, 1, 0, 0, 0, 0]
    with pytest.raises(ValueError, match="reward verifiable: q1 has no gold answer to verify against"):
        verifiable(unlabelled)
