"""Shortest ways in a small weighted graph: the way and its length, where exactly one way is shortest.

Dijkstra's algorithm, counting the shortest ways; the worked solution lists the nodes in the order in which it settles
them, each with its distance. The key hashes what each node sees of the graph within a few steps (Weisfeiler-Leman
colours): equal for graphs that differ in names and in the order of roads, seldom equal for others.
"""

import re
from hashlib import sha256
from random import Random

from poc.tasks.problem import Problem

NODES = "ABCDEFGHI"
INSTRUCTION = "Find the shortest way. End with # and the way, a colon and its length, like this: #X-Y-Z: 70"
MARK = "Roads: "  # of every question

_ROAD = re.compile(r"\b([A-Z])-([A-Z]) ([0-9]+)")
_ANSWER = re.compile(r"([A-Z](?: ?(?:-|->|→|,) ?[A-Z])+) ?[:=] ?([0-9]{1,6})\.?")
Graph = dict[str, dict[str, int]]  # node -> neighbour -> length


def make(rng: Random, nodes: int) -> Problem:
    """Draw a connected graph of `nodes` (6 or 9) and two nodes with one shortest way, of 2 (3) roads at least."""
    while True:
        graph = _graph(rng, nodes)
        start, goal = rng.sample(sorted(graph), 2)
        distance, ways = distances(graph, start)
        if ways[goal] == 1 and len(path(graph, distance, goal)) > nodes // 3:
            return _puzzle(rng, graph, start, goal)


def distances(graph: Graph, start: str) -> tuple[dict[str, int], dict[str, int]]:
    """(distance of every node from `start` in the order of being settled, number of shortest ways to it)."""
    settled, ways, seen = {}, {start: 1}, {start: 0}
    while seen:
        node = min(seen, key=lambda name: (seen[name], name))
        settled[node] = seen.pop(node)
        for other, length in graph[node].items():
            reached = settled[node] + length
            if other in settled or reached > seen.get(other, reached):
                continue
            ways[other] = ways[node] + (ways[other] if reached == seen.get(other) else 0)
            seen[other] = reached
    return settled, ways


def path(graph: Graph, distance: dict[str, int], goal: str) -> list[str]:
    """A shortest way to `goal`, from its start on."""
    way = [goal]
    while distance[way[0]]:
        way.insert(0, next(n for n, length in graph[way[0]].items() if distance[n] + length == distance[way[0]]))
    return way


def canonical(question: str, answer: str) -> str | None:
    """ "A-C-F: 12" from such an answer, arrows and spaces aside; None if it is none, or not of the question's nodes."""
    found = _ANSWER.fullmatch(" ".join(answer.split()))
    nodes = re.findall("[A-Z]", found[1]) if found else []
    known = {node for road in _ROAD.findall(question) for node in road[:2]}
    return f"{'-'.join(nodes)}: {int(found[2])}" if nodes and set(nodes) <= known else None


def _graph(rng: Random, nodes: int) -> Graph:
    names = rng.sample(NODES[:nodes], nodes)
    pairs = {tuple(sorted((names[i], names[rng.randrange(i)]))) for i in range(1, nodes)}  # a tree joins all
    while len(pairs) < nodes * 5 // 3:
        pairs.add(tuple(sorted(rng.sample(names, 2))))
    graph: Graph = {name: {} for name in names}
    for one, other in sorted(pairs):
        graph[one][other] = graph[other][one] = rng.randint(1, 20)
    return graph


def _key(graph: Graph, start: str, goal: str) -> str:
    colours = {node: str((node == start) - (node == goal)) for node in graph}
    for _ in range(3):
        seen = {node: sorted((length, colours[n]) for n, length in graph[node].items()) for node in graph}
        colours = {node: sha256(f"{colours[node]} {seen[node]}".encode()).hexdigest()[:16] for node in graph}
    return " ".join(sorted(colours.values()))


def _puzzle(rng: Random, graph: Graph, start: str, goal: str) -> Problem:
    roads = [rng.sample((one, other), 2) + [graph[one][other]] for one in graph for other in graph[one] if one < other]
    listed = ", ".join(f"{one}-{other} {length}" for one, other, length in rng.sample(roads, len(roads)))
    question = f"{MARK}{listed}. What is the shortest way from {start} to {goal}, and how long is it?"
    distance, _ = distances(graph, start)
    answer = f"{'-'.join(path(graph, distance, goal))}: {distance[goal]}"
    settled = ", ".join(f"{node} {length}" for node, length in distance.items() if length <= distance[goal])
    return Problem(question, answer, f"{settled} #{answer}", _key(graph, start, goal))
