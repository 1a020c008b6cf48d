"""The processes of the simulation domain: operations on words, small grids and short programs.

A process is text for the question beside a callable of ours that does the same; the text of a program is never run.
Word operations are read back from their text (`run`), so that an input can be judged from the operations alone.
"""

import re
from collections.abc import Callable
from random import Random
from typing import Any

LETTERS = "abcdefgh"
Grid = list[list[int]]
Step = tuple[str, Callable[..., Any]]  # text and callable

WORDS = {  # pattern of the text -> (word, the text's arguments) -> word
    r"reverse": lambda s: s[::-1],
    r"rotate left by (\d)": lambda s, n: s[int(n) :] + s[: int(n)],
    r"rotate right by (\d)": lambda s, n: s[-int(n) :] + s[: -int(n)],
    r"swap first and last": lambda s: s[-1:] + s[1:-1] + s[:1] if len(s) > 1 else s,
    r"swap the halves": lambda s: s[(len(s) + 1) // 2 :] + s[: (len(s) + 1) // 2],
    r"drop the first (\d)": lambda s, n: s[int(n) :],
    r"drop the last (\d)": lambda s, n: s[: -int(n)],
    r"double every ([a-h])": lambda s, a: s.replace(a, a + a),
    r"delete every ([a-h])": lambda s, a: s.replace(a, ""),
    r"replace ([a-h]) by ([a-h])": lambda s, a, b: s.replace(a, b),
    r"append ([a-h])": lambda s, a: s + a,
    r"prepend ([a-h])": lambda s, a: a + s,
    r"sort the letters": lambda s: "".join(sorted(s)),
    r"keep every second letter": lambda s: s[::2],
    r"write it twice": lambda s: s + s,
}


def word_operation(rng: Random) -> str:
    """The text of one operation on a word; the halves split so that the first is the longer one."""
    text = rng.choice(list(WORDS))
    text = re.sub(r"\(\\d\)", lambda _: str(rng.randint(1, 2)), text)
    letters = rng.sample(LETTERS, 2)
    return re.sub(r"\(\[a-h\]\)", lambda _: letters.pop(), text)


def run(operations: list[str], word: str) -> list[str]:
    """The word after each operation. Raises ValueError for an unknown operation."""
    states = [word]
    for text in operations:
        states.append(_operate(text, states[-1]))
    return states[1:]


def _operate(text: str, word: str) -> str:
    for pattern, operation in WORDS.items():
        if found := re.fullmatch(pattern, text):
            return operation(word, *found.groups())
    raise ValueError(f"{text!r} is no operation on words")


GRIDS = {
    "rotate it a quarter turn clockwise": lambda g: [list(row) for row in zip(*g[::-1], strict=True)],
    "rotate it a quarter turn anticlockwise": lambda g: [list(row) for row in zip(*g, strict=True)][::-1],
    "rotate it by half a turn": lambda g: [row[::-1] for row in g[::-1]],
    "transpose it": lambda g: [list(row) for row in zip(*g, strict=True)],
    "mirror it left to right": lambda g: [row[::-1] for row in g],
    "turn it upside down": lambda g: g[::-1],
    "move every row one cell to the right, the last cell to the front": lambda g: [row[-1:] + row[:-1] for row in g],
    "swap the first and the last row": lambda g: [g[-1], *g[1:-1], g[0]],
}
LIFE = (
    "Conway's game of life: 1 is alive, 0 dead, all outside is dead; of the 8 cells around it a live cell needs 2 or 3 "
    "alive to live on, a dead cell exactly 3 to come alive, all at once"
)
SAND = "falling sand: 1 is sand, 2 rock, 0 air; rock stays, every grain falls in its column until something is below"


def life(grid: Grid) -> Grid:
    """One generation; the cells outside are dead."""
    rows, columns = range(len(grid)), range(len(grid[0]))

    def around(i: int, j: int) -> int:
        near = [(i + a, j + b) for a in (-1, 0, 1) for b in (-1, 0, 1) if a or b]
        return sum(grid[x][y] for x, y in near if x in rows and y in columns)

    return [[int(around(i, j) == 3 or (grid[i][j] and around(i, j) == 2)) for j in columns] for i in rows]


def sand(grid: Grid) -> Grid:
    """Every grain of sand on the ground, on rock or on other sand."""
    fallen = [row[:] for row in grid]
    for i in reversed(range(len(fallen) - 1)):
        for j in range(len(fallen[0])):
            k = i
            while fallen[k][j] == 1 and k + 1 < len(fallen) and fallen[k + 1][j] == 0:
                fallen[k][j], fallen[k + 1][j] = 0, 1
                k += 1
    return fallen


def grid_process(rng: Random) -> tuple[str, Grid, list[Grid]]:
    """(the process in words, the grid before, the grids after each of its steps)."""
    rows, columns = rng.randint(3, 4), rng.randint(3, 5)
    kind = rng.choice(("life", "sand", "turn"))
    cells = {"life": (0, 0, 1), "sand": (0, 0, 1, 1, 2), "turn": tuple(range(10))}[kind]
    grid = [rng.choices(cells, k=columns) for _ in range(rows)]
    if kind == "sand":
        return SAND, grid, [sand(grid)]
    if kind == "life":
        return f"two generations of {LIFE}", grid, [life(grid), life(life(grid))]
    names = rng.sample(list(GRIDS), 2)
    after = [GRIDS[names[0]](grid)]
    return ", then ".join(names), grid, [*after, GRIDS[names[1]](after[0])]


# Programs. {k} and its kin are constants; a callable takes the loop's values and those constants by name.
CONDITIONS = {
    "v % 2 == 0": lambda v, k: v % 2 == 0,
    "v % 3 == 1": lambda v, k: v % 3 == 1,
    "v > {k}": lambda v, k: v > k,
    "v <= {k}": lambda v, k: v <= k,
}
NUMBERS = {
    "x = x + v": lambda x, v, k: x + v,
    "x = x - v": lambda x, v, k: x - v,
    "x = x + {k}": lambda x, v, k: x + k,
    "x = x * 2": lambda x, v, k: x * 2,
    "x = x * 2 - v": lambda x, v, k: x * 2 - v,
    "x = x // 2": lambda x, v, k: x // 2,
    "x = x % {k} + v": lambda x, v, k: x % k + v,
}
LISTS = {
    "x.append(v)": lambda x, v, k: [*x, v],
    "x.append(v * 2)": lambda x, v, k: [*x, v * 2],
    "x.insert(0, v)": lambda x, v, k: [v, *x],
    "x = x + [v, {k}]": lambda x, v, k: [*x, v, k],
    "x = x[::-1]": lambda x, v, k: x[::-1],
    "x = x[1:] + [v]": lambda x, v, k: [*x[1:], v],
    "x = [w + {k} for w in x]": lambda x, v, k: [w + k for w in x],
}
STRINGS = {
    "x = x + c": lambda x, c: x + c,
    "x = c + x": lambda x, c: c + x,
    "x = x[::-1]": lambda x, c: x[::-1],
    "x = x + c * 2": lambda x, c: x + c * 2,
    "x = x[1:] + c": lambda x, c: x[1:] + c,
    "x = x.replace(c, '') + c": lambda x, c: x.replace(c, "") + c,
}
COUNTS = {
    "x[c] = x.get(c, 0) + 1": lambda x, i, c: x | {c: x.get(c, 0) + 1},
    "x[c] = i": lambda x, i, c: x | {c: i},
    "x[c] = x.get(c, 0) + i": lambda x, i, c: x | {c: x.get(c, 0) + i},
    "x[c] = x.get(c, []) + [i]": lambda x, i, c: x | {c: [*x.get(c, []), i]},
    "x[c] = not x.get(c, False)": lambda x, i, c: x | {c: not x.get(c, False)},
}


def program(rng: Random) -> tuple[str, list[Any]]:
    """(the text of a program, what x is after each turn of its loop); its last value is what it prints as JSON."""
    return rng.choice((_numbers, _numbers, _lists, _lists, _strings, _counts, _while))(rng)


def _loop(head: str, lines: list[str], start: Any, turns: list, step: Callable) -> tuple[str, list[Any]]:
    states = [start]
    for turn in turns:
        states.append(step(states[-1], turn))
    body = "\n".join(f"    {line}" for line in lines)
    return f"import json\n{head}\n{body}\nprint(json.dumps(x))", states[1:]


def _branch(condition: str, yes: str, no: str) -> list[str]:
    return [f"if {condition}:", f"    {yes}", "else:", f"    {no}"]


def _numbers(rng: Random) -> tuple[str, list[Any]]:
    return _branching(rng, NUMBERS, rng.randint(1, 9))


def _lists(rng: Random) -> tuple[str, list[Any]]:
    return _branching(rng, LISTS, [rng.randint(1, 9)])


def _branching(rng: Random, updates: dict, start: Any) -> tuple[str, list[Any]]:
    values, k = [rng.randint(0, 9) for _ in range(rng.randint(4, 6))], rng.randint(2, 7)
    condition = rng.choice(list(CONDITIONS))
    yes, no = rng.sample(list(updates), 2)

    def step(x, v):
        return updates[yes if CONDITIONS[condition](v, k) else no](x, v, k)

    lines = [line.replace("{k}", str(k)) for line in _branch(condition, yes, no)]
    return _loop(f"x = {start}\nfor v in {values}:", lines, start, values, step)


def _strings(rng: Random) -> tuple[str, list[Any]]:
    word, some = "".join(rng.choices(LETTERS, k=rng.randint(5, 7))), "".join(sorted(rng.sample(LETTERS, 3)))
    yes, no = rng.sample(list(STRINGS), 2)

    def step(x, c):
        return STRINGS[yes if c in some else no](x, c)

    return _loop(f"x = ''\nfor c in '{word}':", _branch(f"c in '{some}'", yes, no), "", list(word), step)


def _counts(rng: Random) -> tuple[str, list[Any]]:
    word, update = "".join(rng.choices(LETTERS[:4], k=rng.randint(5, 7))), rng.choice(list(COUNTS))
    first = rng.randint(0, 3)

    def step(x, turn):
        return COUNTS[update](x, *turn)

    turns = list(enumerate(word, first))
    return _loop(f"x = {{}}\nfor i, c in enumerate('{word}', {first}):", [update], {}, turns, step)


def _while(rng: Random) -> tuple[str, list[Any]]:
    start, divisor, add, most = rng.randint(10, 60), rng.randint(2, 3), rng.randint(1, 9), rng.randint(3, 5)

    def step(x, _):
        return x // divisor if x % divisor == 0 else x + add

    lines = [*_branch(f"x % {divisor} == 0", f"x = x // {divisor}", f"x = x + {add}"), "n = n + 1"]
    return _loop(f"x = {start}\nn = 0\nwhile n < {most}:", lines, start, list(range(most)), step)
