"""Shortest ways against trying every way, read from the question's text."""

import hashlib
import json
import re
from functools import cache
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from poc import tasks
from poc.records import Example
from poc.tasks import graphs, logic
from poc.tasks.answers import Reading

LEVELS = (11, 12)
PINNED = {11: "d3fe23492fc0f6b8", 12: "abcaa58b4e008c38"}
QUESTION = "Roads: A-B 4, B-C 3, A-C 9, C-D 2. What is the shortest way from A to D, and how long is it?"
GOLD = "A-B-C-D: 9"


@cache
def drawn(level: int) -> list[tuple[Example, str]]:
    return [tasks.draw("logic", 0, index, level) for index in range(1000)]


def ways(question: str) -> list[str]:
    """The shortest of all ways that visit no node twice."""
    roads = {}
    for one, other, length in re.findall(r"([A-Z])-([A-Z]) (\d+)", question):
        roads[one, other] = roads[other, one] = int(length)
    start, goal = re.search(r"from ([A-Z]) to ([A-Z])", question).groups()
    found, open_ways = [], [([start], 0)]
    while open_ways:
        way, length = open_ways.pop()
        if way[-1] == goal:
            found.append((length, "-".join(way)))
            continue
        open_ways += [([*way, b], length + n) for (a, b), n in roads.items() if a == way[-1] and b not in way]
    least = min(found)[0]
    return [f"{way}: {length}" for length, way in found if length == least]


@pytest.mark.parametrize("level", LEVELS)
def test_a_thousand_puzzles_score_are_reproducible_and_unique(level):
    for index, (example, _) in enumerate(drawn(level)):
        worked = logic.make(Random(f"logic/0/{level}/{index}"), level).worked
        assert tasks.score(example, worked).correct and tasks.score(example, worked).formatted
        assert tasks.read(example, worked) == Reading(example.answer, True)
    text = json.dumps([(e.question, e.answer) for e, _ in drawn(level)])
    assert hashlib.sha256(text.encode()).hexdigest()[:16] == PINNED[level]
    assert len({e.question for e, _ in drawn(level)}) == len({key for _, key in drawn(level)}) == 1000


@pytest.mark.parametrize("level,roads", [(11, 2), (12, 3)])
def test_the_gold_is_the_only_shortest_way(level, roads):
    for example, _ in drawn(level)[:300]:
        assert ways(example.text) == [example.answer]
        assert example.answer.count("-") >= roads


@pytest.mark.parametrize("level", LEVELS)
def test_every_split_has_enough_questions(level):
    for split, count in (("train", 512), ("holdout", 256), ("canary", 64)):
        assert len(tasks.generate("logic", level, split, count, 0)) == count


@pytest.mark.parametrize("level", LEVELS)
def test_the_golds_of_others_pass_only_where_they_are_true(level):
    examples = [example for example, _ in drawn(level)[:50]]
    for example in examples:
        for other in examples:
            assert tasks.score(example, f"#{other.answer}").correct is (other.answer in ways(example.text))


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**9), st.randoms(use_true_random=False))
def test_renaming_nodes_and_moving_roads_keeps_the_key_and_new_lengths_change_it(seed, chance):
    graph = graphs._graph(Random(seed), 6)
    new = dict(zip(graph, chance.sample(sorted(graph), 6), strict=True))
    moved = {new[node]: {new[other]: n for other, n in graph[node].items()} for node in chance.sample(sorted(graph), 6)}
    start, goal = chance.sample(sorted(graph), 2)
    assert graphs._key(graph, start, goal) == graphs._key(moved, new[start], new[goal])
    one, other = next((a, b) for a in graph for b in graph[a])
    graph[one][other] = graph[other][one] = 99
    assert graphs._key(graph, start, goal) != graphs._key(moved, new[start], new[goal])


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 10**9))
def test_the_number_of_shortest_ways_is_right_where_there_are_several(seed):
    rng = Random(seed)
    graph = graphs._graph(rng, 6)
    for one, other in [(a, b) for a in graph for b in graph[a] if a < b]:
        graph[one][other] = graph[other][one] = rng.randint(1, 2)  # many ties
    listed = ", ".join(f"{a}-{b} {n}" for a in graph for b, n in graph[a].items() if a < b)
    distance, count = graphs.distances(graph, "A")
    found = ways(f"Roads: {listed}. from A to F,")
    assert len(found) == count["F"] and found[0].endswith(f": {distance['F']}")
    assert f"{'-'.join(graphs.path(graph, distance, 'F'))}: {distance['F']}" in found


@pytest.mark.parametrize(
    "answer,status",
    [
        (GOLD, "correct"), ("A -> B -> C -> D: 9", "correct"), ("A-B-C-D = 9.", "correct"), ("A→B→C→D:9", "correct"),
        ("A, B, C, D: 9", "correct"), ("A-B-C-D: 009", "correct"), ("A-C-D: 11", "wrong"), ("A-B-C-D: 8", "wrong"),
        ("A-D: 9", "wrong"),
        ("D-C-B-A: 9", "wrong"), ("A-B-C-D-C-D: 9", "wrong"), ("A-B-C-D", "unparsable"), ("9", "unparsable"),
        (": 9", "unparsable"),
        ("A-B-C-D: 9 or 8", "unparsable"), ("A-B-C-D: 9, A-C-D: 11", "unparsable"), ("A-B-C-D: 9 A-B-C-D: 9",
        "unparsable"),
        ("the way is A-B-C-D: 9", "unparsable"), ("A-B-C-D: 9.0", "unparsable"), ("A-B-C-D: ٩", "unparsable"),
        ("A-B-C-X: 9", "unparsable"),
        ("a-b-c-d: 9", "unparsable"), ("А-B-C-D: 9", "unparsable"), ("A-B-C-D: 9" + "0" * 200_000, "unparsable"),
        ("", "unparsable"),
        ("A-" * 100_000, "unparsable"), ("A-B-C-D: -9", "unparsable"), ("A-B-C-D: 9 9", "unparsable"),
        ("A-B-C-D: 3**2", "unparsable"),
        ("A-B/C-C-D: 9", "unparsable"), ("sys.exit(0)", "unparsable"), ("Thought process:", "unparsable"),
        ("\ud800\0", "unparsable"),
    ],
)  # fmt: skip
def test_verdicts(answer, status):
    example = Example("x", QUESTION, GOLD, "logic", 11)
    assert logic.score(example, f"#{answer}").status == status
    assert (logic.read(example.text, f"#{answer}").answer == GOLD) is (status == "correct")
    assert not logic.score(example, answer).correct and not logic.score(example, f"{QUESTION} {answer}").correct


@given(st.text())
def test_no_text_raises(text):
    for level in LEVELS:
        example, _ = drawn(level)[0]
        assert not tasks.score(example, f"#{text}").correct
