"""Levels 1 to 3 of the code domain: small functions described in words, with hidden tests that lazy answers fail.

1: an integer, one condition, two results. 2: elements of a list, characters or words of a text: which, changed how, put
together how. 3: a loop that collects integers, and what to make of them. Every part has a phrase, Python source and a
callable; expected values come from the callables, the gold from the source, so each checks the other (in the tests,
through the sandbox). Of many drawn inputs those become tests that tell the function from its near misses: every number
one off, the condition dropped or turned around. Redrawn until the tests have five different outputs, so that no
constant and no short table passes. The split key is what the function does on fixed probes: two descriptions of one
behaviour share it.
"""

import hashlib
import json
from collections.abc import Callable
from random import Random
from typing import Any, NamedTuple

from poc.tasks.problem import Problem

TESTS = 8
DISTINCT = 5  # different outputs among the tests
DRAWN = 40  # inputs of which the tests are chosen
PATIENCE = 60  # values that a loop collects at most; only near misses reach it (49 steps of 2 from 99 to 1)
NUMBERS = [*range(-45, 46), 50, 64, 77, 81, 99, 100, 120]
LETTERS = "abcdefghijklmnopqrstuvwxyz"
WORDS = ("apple", "river", "stone", "cloud", "tiger", "moon", "a", "be", "garden", "umbrella", "kite", "onyx", "violet")


class Part(NamedTuple):
    """A piece of a description: `says` in words, `source` in Python, `does` the same as a callable, `near` its near
    misses."""

    says: str
    source: str
    does: Callable
    near: tuple[Callable, ...] = ()


class Draft(NamedTuple):
    """A function before its tests are chosen from `pool`; `probes`: fixed inputs on which its behaviour is its key."""

    asks: str
    argument: str
    body: str
    does: Callable
    near: list[Callable]
    pool: list
    probes: list


def make(rng: Random, level: int) -> Problem:
    """Draw a problem of `level` (1-3)."""
    draw = {1: _branches, 2: _elements, 3: _loop}[level]
    while True:
        draft = draw(rng)
        tests = [[[x], draft.does(x)] for x in _telling(draft)]
        if len({json.dumps(y) for _, y in tests}) >= DISTINCT:
            return _problem(level, draft, tests)


def _problem(level: int, draft: Draft, tests: list) -> Problem:
    behaviour = json.dumps([draft.does(x) for x in draft.probes])
    key = f"code-{level}-{hashlib.sha256(behaviour.encode()).hexdigest()}"
    gold = f"def f({draft.argument}):\n{draft.body}"
    question = f"{draft.asks}\ndef f({draft.argument}):"
    worked = f"Step by step, as the description goes.\n```python\n{gold}\n```"
    return Problem(question, gold, worked, key, json.dumps({"entry": "f", "tests": tests}))


def _telling(draft: Draft) -> list:
    """Eight inputs of the pool: first those that tell the most near misses apart that are not told yet."""
    right = [(x, draft.does(x)) for x in draft.pool]
    told = [(x, {i for i, f in enumerate(draft.near) if f(x) != y}) for x, y in right]
    chosen, known = [], set()
    while told and len(chosen) < TESTS:
        best = max(range(len(told)), key=lambda i: (len(told[i][1] - known), -i))
        x, news = told.pop(best)
        chosen.append(x)
        known |= news
    return chosen


def _around(family: Callable, *numbers: int) -> tuple[Callable, tuple[Callable, ...]]:
    """The member of a family of functions for these numbers, and those for one number one off."""
    off = [
        (*numbers[:i], n + step, *numbers[i + 1 :]) for i, n in enumerate(numbers) for step in (-1, 1)
    ]  # fmt: skip
    return family(*numbers), tuple(family(*each) for each in off)


# Level 1


def _condition(rng: Random) -> Part:
    k, d = rng.randint(-8, 20), rng.randint(3, 9)
    m, r = k + rng.randint(3, 12), rng.randint(1, d - 1)
    leaves = _around(lambda d, r: lambda n: n % d == r, d, r)
    return rng.choice(
        (
            Part("n is even", "n % 2 == 0", *_around(lambda d: lambda n: n % d == 0, 2)),
            Part(f"n is divisible by {d}", f"n % {d} == 0", *_around(lambda d: lambda n: n % d == 0, d)),
            Part(f"n is greater than {k}", f"n > {k}", *_around(lambda k: lambda n: n > k, k)),
            Part(f"n is less than {k}", f"n < {k}", *_around(lambda k: lambda n: n < k, k)),
            Part(f"n is from {k} to {m}", f"{k} <= n <= {m}", *_around(lambda k, m: lambda n: k <= n <= m, k, m)),
            Part(f"n leaves the remainder {r} modulo {d}", f"n % {d} == {r}", *leaves),
            Part(f"n squared is less than {d * d}", f"n * n < {d * d}", *_around(lambda d: lambda n: abs(n) < d, d)),
        )
    )


def _result(rng: Random) -> Part:
    k, m = rng.randint(2, 9), rng.randint(1, 20)
    return rng.choice(
        (
            Part(f"n plus {m}", f"n + {m}", lambda n: n + m),
            Part(f"n minus {m}", f"n - {m}", lambda n: n - m),
            Part(f"{m} minus n", f"{m} - n", lambda n: m - n),
            Part(f"n times {k}", f"n * {k}", lambda n: n * k),
            Part(f"n times {k}, plus {m}", f"n * {k} + {m}", lambda n: n * k + m),
            Part(f"n squared, plus {m}", f"n * n + {m}", lambda n: n * n + m),
            Part(f"n squared, minus {m}", f"n * n - {m}", lambda n: n * n - m),
            Part(f"the absolute value of n, plus {m}", f"abs(n) + {m}", lambda n: abs(n) + m, (lambda n: n + m,)),
            Part(f"n divided by {k}, rounded down", *_quotient(k)),
        )
    )


def _quotient(k: int) -> tuple:
    return f"n // {k}", *_around(lambda k: lambda n: n // max(1, k), k)


def _branches(rng: Random) -> Draft:
    test, yes, no = _condition(rng), _result(rng), _result(rng)

    def branch(test: Callable, yes: Callable, no: Callable) -> Callable:
        return lambda n: yes(n) if test(n) else no(n)

    near = [branch(other, yes.does, no.does) for other in test.near] + [yes.does, no.does]
    near += [branch(test.does, other, no.does) for other in yes.near]
    near += [branch(test.does, yes.does, other) for other in no.near]
    pool = rng.sample(NUMBERS, len(NUMBERS))
    sides = [[n for n in pool if test.does(n) is side] for side in (True, False)]
    mixed = [n for pair in zip(*sides, strict=False) for n in pair]  # both sides, however rare one is
    asks = f"Write f(n) for an integer n. If {test.says}, return {yes.says}; otherwise return {no.says}."
    body = f"    if {test.source}:\n        return {yes.source}\n    return {no.source}"
    pool = mixed + [n for n in pool if n not in mixed]
    same = all(yes.does(n) == no.does(n) for n in range(-99, 100))
    return Draft(asks, "n", body, branch(test.does, yes.does, no.does), near, [] if same else pool, NUMBERS)


# Level 2


def _elements(rng: Random) -> Draft:
    return rng.choices((_numbers, _characters, _words), (6, 3, 1))[0](rng)


def _pipeline(given: str, parts: tuple[Part, Part, Part], pool: list, probes: list) -> Draft:
    """Which elements of the list, letters or words that are `given`, changed how, put together how."""
    which, change, end = parts
    argument, source, kind, split = {
        "elements": ("items", "items", "a list of integers", list),
        "letters": ("text", "text", "a text of lower-case letters", list),
        "words": ("text", "text.split()", "a text of words with spaces in between", str.split),
    }[given]

    def function(which: Callable, end: Callable) -> Callable:
        return lambda x: end([change.does(each) for each in split(x) if which(each)])

    near = [function(other, end.does) for other in (*which.near, lambda x: True)]
    near += [function(which.does, other) for other in end.near]
    asks = (
        f"Write f({argument}) for {kind}. Take the {given} that {which.says}, in their order. {change.says}. "
        f"Return {end.says}."
    )
    body = f"    found = [{change.source} for x in {source} if {which.source}]\n    return {end.source}"
    return Draft(asks, argument, body, function(which.does, end.does), near, pool, probes)


def _numbers(rng: Random) -> Draft:
    k, d, m = rng.randint(-5, 12), rng.randint(2, 6), rng.randint(2, 12)
    r = rng.randrange(d)
    leave = _around(lambda d, r: lambda x: x % d == r, d, r)
    differ = _around(lambda k, d: lambda x: abs(x - k) <= d, k, d)
    which = (
        Part(f"leave the remainder {r} modulo {d}", f"x % {d} == {r}", *leave),
        Part(f"are greater than {k}", f"x > {k}", *_around(lambda k: lambda x: x > k, k)),
        Part(f"are less than {k}", f"x < {k}", *_around(lambda k: lambda x: x < k, k)),
        Part(f"differ from {k} by at most {d}", f"abs(x - {k}) <= {d}", *differ),
    )
    change = (
        Part(f"Add {m} to each", f"x + {m}", lambda x: x + m),
        Part(f"Multiply each by {m}", f"x * {m}", lambda x: x * m),
        Part(f"Subtract each from {m}", f"{m} - x", lambda x: m - x),
        Part(f"Square each and subtract {m}", f"x * x - {m}", lambda x: x * x - m),
        Part(f"Multiply each by {d} and add {m}", f"x * {d} + {m}", lambda x: x * d + m),
    )
    pool = [[], *(rng.choices(range(-12, 25), k=rng.randint(2, 8)) for _ in range(DRAWN))]
    parts = rng.choice(which), rng.choice(change), rng.choice(NUMBER_ENDS)
    return _pipeline("elements", parts, pool, _fixed_lists())


NUMBER_ENDS = (
    Part("the list of the results", "found", list, (sorted,)),
    Part("the list of the results in reverse order", "found[::-1]", lambda found: found[::-1], (list, sorted)),
    Part("the list of the results, smallest first", "sorted(found)", sorted, (list,)),
    Part("the sum of the results, 0 if there are none", "sum(found)", sum, (len,)),
    Part(
        "the largest result, 0 if there are none",
        "max(found, default=0)",
        lambda found: max(found, default=0),
        (lambda found: max(found, default=None), lambda found: max([0, *found]), lambda found: [0, *found][-1]),
    ),
    Part(
        "the smallest result, 0 if there are none",
        "min(found, default=0)",
        lambda found: min(found, default=0),
        (lambda found: min(found, default=None), lambda found: min([0, *found]), lambda found: [0, *found][-1]),
    ),
)


def _characters(rng: Random) -> Draft:
    c, sign = rng.choice(LETTERS[2:-4]), rng.choice("!?*+.")
    which = (
        Part("are vowels (a, e, i, o, u)", "x in 'aeiou'", lambda x: x in "aeiou", (lambda x: x in "aeio",)),
        Part("are no vowels (a, e, i, o, u)", "x not in 'aeiou'", lambda x: x not in "aeiou"),
        Part(f"are not '{c}'", f"x != '{c}'", lambda x: x != c),
        Part(f"come before '{c}' in the alphabet", f"x < '{c}'", *_around(lambda k: lambda x: ord(x) < k, ord(c))),
        Part(f"come after '{c}' in the alphabet", f"x > '{c}'", *_around(lambda k: lambda x: ord(x) > k, ord(c))),
    )
    change = (
        Part("Turn each into upper case", "x.upper()", str.upper),
        Part("Double each", "x * 2", lambda x: x * 2),
        Part(f"Write '{sign}' after each", f"x + '{sign}'", lambda x: x + sign),
        Part(f"Write '{sign}' before each", f"'{sign}' + x", lambda x: sign + x),
    )
    some = LETTERS + c * 3 + "aeiou"
    pool = ["", *("".join(rng.choices(some, k=rng.randint(3, 9))) for _ in range(DRAWN))]
    return _pipeline("letters", (rng.choice(which), rng.choice(change), _text_end(rng)), pool, _fixed_texts(LETTERS))


def _text_end(rng: Random) -> Part:
    gap, k = rng.choice("-_/,;"), rng.randint(2, 4)
    first = _around(lambda k: lambda found: "".join(found[:k]), k)
    last = _around(lambda k: lambda found: "".join(found[-k:]), k)
    return rng.choice(
        (
            Part("them joined into one text", "''.join(found)", "".join),
            Part("them joined in reverse order", "''.join(found[::-1])", lambda found: "".join(found[::-1])),
            Part(f"them joined with '{gap}' in between", f"'{gap}'.join(found)", gap.join, ("".join,)),
            Part(f"the first {k} of them, joined", f"''.join(found[:{k}])", *first),
            Part(f"the last {k} of them, joined", f"''.join(found[-{k}:])", *last),
        )
    )


def _words(rng: Random) -> Draft:
    k, c = rng.randint(2, 5), rng.choice("aeiouglnrt")
    which = (
        Part(f"have more than {k} letters", f"len(x) > {k}", *_around(lambda k: lambda x: len(x) > k, k)),
        Part(f"have fewer than {k + 1} letters", f"len(x) < {k + 1}", *_around(lambda k: lambda x: len(x) <= k, k)),
        Part(f"contain '{c}'", f"'{c}' in x", lambda x: c in x),
        Part(f"do not contain '{c}'", f"'{c}' not in x", lambda x: c not in x),
    )
    change = (
        Part("Reverse each", "x[::-1]", lambda x: x[::-1]),
        Part("Turn each into upper case", "x.upper()", str.upper),
        Part(f"Shorten each to its first {k} letters", f"x[:{k}]", lambda x: x[:k]),
        Part(f"Drop the first letter of each and append '{c}'", f"x[1:] + '{c}'", lambda x: x[1:] + c),
        Part(f"Write '{c}' before each", f"'{c}' + x", lambda x: c + x),
    )
    pool = ["", *(" ".join(rng.sample(WORDS, rng.randint(3, 8))) for _ in range(DRAWN))]
    return _pipeline("words", (rng.choice(which), rng.choice(change), _text_end(rng)), pool, _fixed_texts(WORDS))


def _fixed_lists() -> list[list[int]]:
    fixed = Random("code probes")
    return [[], *([x] for x in range(-20, 30)), *(fixed.choices(range(-20, 30), k=9) for _ in range(9))]


def _fixed_texts(pieces: Any) -> list[str]:
    fixed, gap = Random("code probes"), " " if pieces is WORDS else ""
    return ["", *pieces, *(gap.join(fixed.sample(pieces, 9)) for _ in range(20))]


# Level 3


def _loop(rng: Random) -> Draft:
    says, lines, visit, near_visits = rng.choice((_shrinking, _stepping))(rng)
    end = _collected_end(rng)

    def function(visit: Callable, end: Callable) -> Callable:
        return lambda n: end(visit(n))

    near = [function(other, end.does) for other in near_visits] + [function(visit, other) for other in end.near]
    asks = f"Write f(n) for a positive integer n. {says} Collect all its values, n first. Return {end.says}."
    body = f"    found = [n]\n{lines}\n    return {end.source}"
    pool = rng.sample(range(1, 100), DRAWN)
    return Draft(asks, "n", body, function(visit, end.does), near, pool, [*range(1, 100)])


def _shrinking(rng: Random) -> tuple[str, str, Callable, tuple[Callable, ...]]:
    def family(k: int, d: int, c: int) -> Callable:
        def visit(n: int) -> list[int]:
            found = [n]
            while found[-1] > k and len(found) < PATIENCE:
                found.append(found[-1] // d if found[-1] % d == 0 else found[-1] - c)
            return found

        return visit

    k, d, c = rng.randint(2, 15), rng.randint(2, 5), rng.randint(1, 6)
    says = f"While n is greater than {k}: divide it by {d} if it is divisible by {d}, otherwise subtract {c}."
    step = f"n = n // {d} if n % {d} == 0 else n - {c}"
    return says, f"    while n > {k}:\n        {step}\n        found.append(n)", *_around(family, k, d, c)


def _stepping(rng: Random) -> tuple[str, str, Callable, tuple[Callable, ...]]:
    def family(times: int, a: int, b: int, m: int) -> Callable:
        def visit(n: int) -> list[int]:
            found = [n]
            for _ in range(times):
                found.append((found[-1] * a + b) % m)
            return found

        return visit

    times, a, b, m = rng.randint(3, 7), rng.randint(2, 9), rng.randint(1, 9), rng.randint(11, 40)
    says = f"Do this {times} times: multiply n by {a}, add {b} and keep the remainder modulo {m}."
    step = f"n = (n * {a} + {b}) % {m}"
    return (
        says,
        f"    for _ in range({times}):\n        {step}\n        found.append(n)",
        *_around(family, times, a, b, m),
    )


def _collected_end(rng: Random) -> Part:
    k, d = rng.randint(3, 30), rng.randint(2, 5)
    multiples = _around(lambda d: lambda found: sum(x for x in found if x % d == 0), d)
    large = _around(lambda k: lambda found: sum(x for x in found if x > k), k)
    others = _around(lambda d: lambda found: [x for x in found if x % d], d)
    return rng.choice(
        (
            Part("the list of them", "found", list),
            Part("their sum", "sum(found)", sum),
            Part("the largest minus the smallest", "max(found) - min(found)", lambda found: max(found) - min(found)),
            Part(f"the sum of those divisible by {d}", f"sum(x for x in found if x % {d} == 0)", *multiples),
            Part(f"the sum of those greater than {k}", f"sum(x for x in found if x > {k})", *large),
            Part(f"the list of those that leave a remainder modulo {d}", f"[x for x in found if x % {d}]", *others),
        )
    )
