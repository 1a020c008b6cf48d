"""Which answers mean the same: the clusters of EMPO's semantic entropy (arXiv 2504.05812, section 3).

`classes` gives equal labels to answers of equal meaning, in four steps:

1. equal strings (`answers.normalise`);
2. equal plain decimal numbers (`answers.parse_number`), exactly. A percent sign is decoration, as everywhere in the
   kit: 50% = 50, and so 50% is not 1/2;
3. everything else that looks like mathematics: a = b where math-verify says verify(a, b) or verify(b, a), which
   rounds to six decimals where one side is a decimal number (0.333333 = 1/3);
4. the classes are the connected components of that graph. So the relation is symmetric and transitive, and the
   partition does not depend on the order of the answers; where math-verify is lenient, a third answer may join two
   (x=3 and y=3 are different, but both equal 3).

Text, compared as text only: what has a word in it (three letters or more that are no known name: the letters of a word
do not commute), an unknown LaTeX command or character, a number with a subscript (101_2), more than MAX_ANSWER
characters; what cannot be parsed; and what sympy cannot handle within the time. Ordered pairs and intervals differ
from sets and bare lists: (1,2) is not {1,2}. A unit in \\text{...} or \\mathrm{...} at the end is dropped, as usual.

Step 3 happens in `worker.py`, a process that is started when first needed, once, and killed when it takes too long: a
parse that does makes text, a comparison that does makes two answers different. Nothing here evaluates model text, nor
does the worker (its docstring says why). One worker per process: threads take turns, a forked child starts its own.
POSIX only.
"""

import atexit
import importlib.util
import os
import re
import threading
from collections import OrderedDict
from collections.abc import Sequence
from decimal import Decimal
from itertools import combinations
from pathlib import Path

from poc.records import InputError
from poc.scoring.process import GONE, Process
from poc.tasks.answers import normalise, parse_number

MAX_ANSWER = 200  # characters; a longer answer is text
START_TIMEOUT = 120.0  # seconds for importing sympy on a busy machine
CACHE = 50_000  # replies that are kept

_FUNCTIONS = "sin cos tan cot sec csc arcsin arccos arctan sinh cosh tanh log ln exp gcd lcm max min".split()
_GREEK = (
    "alpha beta gamma delta epsilon varepsilon zeta eta theta iota kappa lambda mu nu xi pi rho sigma tau phi varphi "
    "chi psi omega Gamma Delta Theta Lambda Sigma Phi Psi Omega"
).split()
_OTHERS = (
    "frac sqrt binom cdot times div pm mp le leq ge geq lt gt ne neq infty cup cap setminus in emptyset varnothing "
    "mathbb text textbf mathrm mathbf overline lfloor rfloor lceil rceil begin end mod"
).split()
_COMMANDS = {*_FUNCTIONS, *_GREEK, *_OTHERS}
_NAMES = {*_FUNCTIONS, *_GREEK, "sqrt", "inf", "infty", "and", "pmatrix", "bmatrix"}
_ALPHABET = re.compile(r"[0-9A-Za-z \\+\-*/^_=<>()\[\]{}|!.,:;&]+")
_MISREAD = re.compile(r"[0-9}]_|[0-9.]\s+[0-9.]|[0-9]\s*\{|\.\s*[(\[]")  # by latex2sympy: 101_2 as 101, 3{2} as 3 + 2
_SENTENCE = "or|not|and|is|isnt|no|wrong|false|if|but|maybe|else|i|e"  # a trailing text that is no unit
_UNIT = rf" *(?!(?:{_SENTENCE})\b)(?:(?:square|sq|cubic|cu)\.? )?[A-Za-z./]{{1,14}}(?: per [A-Za-z]{{1,14}})? *"
_PLAIN = {
    "−": "-", "–": "-", "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "÷": r"\div ", "π": r"\pi ", "θ": r"\theta ",
    "∞": r"\infty ", "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "∪": r"\cup ", "∩": r"\cap ", "∈": r"\in ",
    "∅": r"\emptyset ", "±": r"\pm ", "²": "^2 ", "³": "^3 ", "°": "", "½": r"\frac{1}{2}", "\n": " ", "\t": " ",
    "**": "^", "<=": r"\le ", ">=": r"\ge ", r"\left": "", r"\right": "", r"\displaystyle": "", r"\dfrac": r"\frac",
    r"\tfrac": r"\frac", r"\%": "%", r"\$": "", "$": "", r"^\circ": "", r"^{\circ}": "", r"\(": "", r"\)": "",
    r"\[": "", r"\]": "", "{,}": ",",
}  # fmt: skip
_TIDY = [
    (re.compile("|".join(re.escape(key) for key in sorted(_PLAIN, key=len, reverse=True))), lambda m: _PLAIN[m[0]]),
    (re.compile(r"(?<=[0-9])\\[,!](?=[0-9]{3})|(?<=[0-9],)\\!(?=[0-9]{3})"), ""),  # thousands: 12\,345 and 2,\!000
    (re.compile(r"\\[,!;: ]|\\q?quad(?![A-Za-z])"), " "),
    (re.compile(r"\s*(?:%|(?<![A-Za-z\\])percent)\s*(?=$|[,;)\]}])"), ""),
    (re.compile(rf"(?<=[0-9A-Za-z}})])\s*\\(?:text|mathrm)\{{{_UNIT}\}}(\^[23]|\^\{{[23]\}})?\s*$"), ""),
    (re.compile(r"^\s*(-?[0-9]+)\s+([0-9]+)/([0-9]+)\s*$"), r"\1\\frac{\2}{\3}"),  # mixed: 2 1/2
    (re.compile(r"(?<![0-9A-Za-z.\\])([0-9]+(?:\.[0-9]+)?)[eE]\+?(-?[0-9]+)(?![0-9A-Za-z.])"), r"\1\\times 10^{\2}"),
    (re.compile(rf"(?<![A-Za-z\\])({'|'.join(_FUNCTIONS)}|sqrt|pi|theta)(?![A-Za-z])"), r"\\\1"),
    (re.compile(r"((?<![_^0-9.])[0-9.]+|\))\s*\("), r"\1*("),  # latex2sympy takes 2(3) and (2)(3) for mixed numbers
]  # fmt: skip


def classes(answers: Sequence[str | None], timeout: float = 2.0) -> list[int | None]:
    """One label per answer, 0, 1, ... by first appearance: equal labels, same meaning; None where there is no answer.

    `timeout`: seconds for one parse and for one comparison. A None or an answer with nothing in it has no label. If
    all answers are plain numbers or text, no process is started. Raises InputError if math-verify is missing.
    """
    node_of = _nodes(answers)
    mathematics = sorted(node for node in set(node_of.values()) if node[0] == "source")
    parsed = [node for node in mathematics if _reply({"op": "parse", "a": node[1]}, timeout)]
    parent = {node: node for node in node_of.values()}
    if parsed:
        numbers = [node for node in parent if node[0] == "number"]
        for a, b in combinations([*parsed, *numbers], 2):
            if _root(parent, a) != _root(parent, b) and _equal(a, b, timeout):
                parent[_root(parent, a)] = _root(parent, b)
    labels: dict[tuple, int] = {}
    keys = [None if answer is None else normalise(answer) for answer in answers]
    return [labels.setdefault(_root(parent, node_of[key]), len(labels)) if key else None for key in keys]


def _nodes(answers: Sequence[str | None]) -> dict[str, tuple]:
    """Normalised string -> what it stands for. Of strings with one normal form the smallest is read."""
    raw: dict[str, str] = {}
    for answer in answers:
        key = None if answer is None else normalise(answer)
        if key:
            raw[key] = min(answer, raw.get(key, answer))
    return {key: _node(answer, key) for key, answer in raw.items()}


def _node(answer: str, key: str) -> tuple:
    read = source(answer)
    if isinstance(read, Decimal):
        return ("number", read)
    return ("text", key) if read is None else ("source", read)


def source(answer: str) -> Decimal | str | None:
    """`answer` as a plain number, else as LaTeX that is safe to parse, else None: it is text."""
    number = parse_number(answer)
    if number is not None or len(answer) > MAX_ANSWER:
        return number
    latex = answer
    for pattern, replacement in _TIDY:
        latex = pattern.sub(replacement, latex)
    latex = _braced(latex.strip().rstrip(".").strip())
    number = parse_number(latex)
    return number if number is not None else latex if _mathematical(latex) else None


def _braced(latex: str) -> str:
    """sqrt(...) and ^(...) with braces, where the parentheses match."""
    for opener in ("\\sqrt(", "^("):
        start = latex.find(opener)
        while start >= 0:
            first = start + len(opener) - 1
            last = _closing(latex, first)
            if last is None:
                return latex
            latex = f"{latex[:first]}{{{latex[first + 1 : last]}}}{latex[last + 1 :]}"
            start = latex.find(opener)
    return latex


def _closing(latex: str, first: int) -> int | None:
    depth = 0
    for i in range(first, len(latex)):
        depth += (latex[i] in "([{") - (latex[i] in ")]}")
        if depth == 0:
            return i
    return None


def _mathematical(latex: str) -> bool:
    if not _ALPHABET.fullmatch(latex) or _MISREAD.search(re.sub(r"\\[A-Za-z]+[0-9]?", r"\\", latex)):
        return False
    words = re.findall(r"(?<!\\)(?<![A-Za-z])[A-Za-z]{3,}", latex)
    return set(re.findall(r"\\([A-Za-z]+)", latex)) <= _COMMANDS and set(words) <= _NAMES


def _ordered(latex: str) -> bool | None:
    """True for (a,b) and [a,b], False for {a,b} and a,b, None for what is neither."""
    latex = latex.replace("\\{", "{").replace("\\}", "}")
    depth, separators = 0, set()
    for char in latex:
        depth += (char in "([{") - (char in ")]}")
        if char in ",;":
            separators.add(depth)
    whole = latex[0] in "([{" and _closing(latex, 0) == len(latex) - 1
    if whole and 1 in separators:
        return latex[0] != "{"
    return False if 0 in separators else None


def _equal(a: tuple, b: tuple, timeout: float) -> bool:
    if a[0] == b[0] == "number":
        return False  # equal numbers are one node
    first, second = sorted(format(node[1], "f") if node[0] == "number" else node[1] for node in (a, b))
    if {_ordered(first), _ordered(second)} == {True, False}:
        return False  # math-verify has (1,2) equal to {1,2}
    return _reply({"op": "equal", "a": first, "b": second}, timeout)


def _root(parent: dict, node: tuple) -> tuple:
    while parent[node] != node:
        node = parent[node]
    return node


class Worker(Process):
    """The process of `worker.py`, started by the first `ask`. Not for several threads at once."""

    ready = False  # has said that it is

    def ask(self, request: dict, timeout: float) -> bool:
        """The worker's reply, False after `timeout` seconds. A worker that dies is asked once more: it may not be at
        fault (the system ran out of memory), and an answer that does kill it kills it again."""
        for _ in range(2):
            try:
                self.start()
                self.channel.send({**request, "limit": timeout}, timeout)
                return self.channel.receive(timeout)["ok"]
            except TimeoutError:
                self.stop()
                self._launch()  # imports while nobody waits for it
                _TIMEOUTS.count = timeouts() + 1
                return False
            except GONE:
                self.stop()
            except BaseException:  # an interrupt: a late reply must not be taken for the next one
                self.stop()
                raise
        return False

    def start(self) -> None:
        if self.running and self.ready:
            return
        if not self.running:
            self.stop()
            self._launch()
        first = self.channel.receive(START_TIMEOUT)
        if "error" in first:
            raise InputError(f"math-verify cannot be used ({first['error']}): pip install math-verify")
        self.ready = True

    def _launch(self) -> None:
        found = importlib.util.find_spec("math_verify")
        if found is None:
            raise InputError(
                "comparing answers by meaning needs math-verify, which is missing: pip install math-verify"
            )
        self.ready = False
        self.launch("worker.py", _folder(found.origin))


def _folder(origin: str) -> str:
    return str(Path(origin).resolve().parent.parent)


def timeouts() -> int:
    """How many requests of this thread have taken too long so far."""
    return getattr(_TIMEOUTS, "count", 0)


_TIMEOUTS = threading.local()
_WORKER = Worker()
_REPLIES: OrderedDict[tuple, bool] = OrderedDict()
_LOCK = threading.Lock()


def _reply(request: dict, timeout: float) -> bool:
    key = (*request.values(), timeout)
    with _LOCK:
        if key not in _REPLIES:
            _REPLIES[key] = _WORKER.ask(request, timeout)
        _REPLIES.move_to_end(key)
        if len(_REPLIES) > CACHE:
            _REPLIES.popitem(last=False)
        return _REPLIES[key]


def _after_fork() -> None:
    """In a forked child: its own lock and worker. The parent's is neither asked nor killed; only the pipes close."""
    global _LOCK, _WORKER
    _WORKER.disown()
    _LOCK, _WORKER = threading.Lock(), Worker()


os.register_at_fork(after_in_child=_after_fork)
atexit.register(lambda: _WORKER.stop())
