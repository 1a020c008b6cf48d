"""The process that parses and compares: JSON lines in, JSON lines out. `math_equality` starts it by path and kills it.

It imports nothing of poc, so that `python -I` can run it. Its requests and replies:

    {"op": "parse", "a": SOURCE, "limit": s}               -> {"ok": true if sympy can handle SOURCE}
    {"op": "equal", "a": SOURCE, "b": SOURCE, "limit": s}  -> {"ok": true if verify(a, b) or verify(b, a)}

Sources come from `math_equality.source`, which lets through a fixed alphabet, known commands and no words. From there
they go only to the LaTeX extraction of math-verify 0.9: an ANTLR grammar whose visitor builds sympy objects node by
node. Not used: ExprExtractionConfig, which gives model text to sympy's parse_expr, that is to Python's eval; units,
which would read 3t as 3; percent signs, by which math-verify takes 50% for both 50 and 1/2. Of sympy's own generated
code (lambdify for roots and hypergeometric sums) only the first can be reached, with symbols of that fixed alphabet.

It never outlives a request by much: SIGALRM, left at its default, ends it even if the parent died meanwhile.
"""

import cmath
import importlib.util
import json
import os
import signal
import sys
from collections import OrderedDict
from pathlib import Path
from zlib import crc32

GRACE = 1.0  # seconds beyond the limit of a request after which the process ends itself
NOISE = 1e-13  # what is left of an expression that is 0
OBJECTS = 2_000  # parsed sources that are kept
TRIALS = (  # pairs whose comparison imports, or reads, what nothing before them did
    ("1", "x+1"), ("1", "(1,2)"), ("\\sqrt[3]{x}", "(1,2)"), ("(1,2)", "1<x<2"), ("\\sin x", "\\frac{1}{2}"),
    ("\\{1,2\\}", "x=3"), ("\\begin{pmatrix}1&2\\\\3&4\\end{pmatrix}", "\\infty"),
)  # fmt: skip


def main() -> None:
    replies = _private_stdout()
    sys.path += sys.argv[1:]  # where the parent found math-verify, searched last
    try:
        answer = _answerer()
    except ImportError as error:
        return _say(replies, {"error": f"{type(error).__name__}: {error}"})
    _lock(answer)
    _say(replies, {"ready": True})
    for line in sys.stdin:
        request = json.loads(line)
        signal.setitimer(signal.ITIMER_REAL, request["limit"] + GRACE)
        reply = _guarded(answer, request)
        signal.setitimer(signal.ITIMER_REAL, 0)
        _say(replies, reply)


def _lock(answer) -> None:
    """Try everything once, so that what is imported lazily is there, then give up files, network and processes."""
    for a, b in TRIALS:
        _guarded(answer, {"op": "equal", "a": a, "b": b})
    spec = importlib.util.spec_from_file_location("lockdown", Path(__file__).with_name("lockdown.py"))
    lockdown = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(lockdown)
    lockdown.leave_network()
    lockdown.close_down(None)


def _private_stdout():
    """The pipe to the parent; whatever a library prints goes to stderr instead, so that it cannot pass for a reply."""
    replies = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    return replies


def _say(replies, reply: dict) -> None:
    replies.write(json.dumps(reply) + "\n")
    replies.flush()


def _guarded(answer, request: dict) -> dict:
    """What sympy cannot do is not equal; a process short of memory is not to be trusted with the next request."""
    try:
        return {"ok": bool(answer(request))}
    except MemoryError:
        os._exit(1)
    except Exception:
        return {"ok": False}


def _answerer():
    """request -> bool, with sympy and math-verify imported and their signal-based timeouts off."""
    from sympy import Integer, Symbol

    read, same = _reader(), _comparer()
    probes = [Integer(7919), Symbol("probe") + 1]
    known: OrderedDict[str, tuple] = OrderedDict()

    def recall(text: str) -> tuple:
        if text not in known:
            found = read(text)
            known[text] = found, None if found is None else _value(found)
            if len(known) > OBJECTS:
                known.popitem(last=False)
        return known[text]

    def answer(request: dict) -> bool:
        first, value = recall(request["a"])
        if request["op"] == "parse":
            if first is not None:  # what takes too long against anything would take too long against every answer
                [same(first, probe) for probe in probes]
            return first is not None
        second, other = recall(request["b"])
        if first is None or second is None or _apart(value, other):
            return False
        return same(first, second) or same(second, first)

    return answer


def _reader():
    """LaTeX -> sympy object, None if there is no single one. Decimals inside an expression become exact."""
    from latex2sympy2_extended import NormalizationConfig
    from math_verify import LatexExtractionConfig, parse
    from sympy import Basic, Expr, Float, MatrixBase, Rational

    normalization = NormalizationConfig(
        basic_latex=True, units=False, malformed_operators=True, nits=True, boxed="none", equations=False
    )
    latex = [LatexExtractionConfig(boxed_match_priority=-1, normalization_config=normalization)]

    def read(text: str):
        found = parse(f"${text}$", latex, fallback_mode="no_fallback", parsing_timeout=None, raise_on_error=True)
        if len(found) != 1 or not isinstance(found[0], (Basic, MatrixBase)):
            return None
        if isinstance(found[0], Expr) and not isinstance(found[0], Float):
            return found[0].xreplace({number: Rational(str(number)) for number in found[0].atoms(Float)})
        return found[0]

    return read


def _comparer():
    """(gold, pred) -> bool: math-verify in one direction. 30 digits: with its default of 15, 1e-20 equals 2e-20."""
    from math_verify import verify

    def same(gold, pred) -> bool:
        try:
            return verify(gold, pred, numeric_precision=30, timeout_seconds=None, raise_on_error=True)
        except MemoryError:
            raise
        except Exception:  # one direction may fail where the other succeeds
            return False

    return same


def _value(found) -> complex | None:
    """The expression at one fixed point (each symbol between 0.5 and 1.5, by its name), None where it has no value."""
    from sympy import Expr, Rational, Symbol

    if not isinstance(found, Expr) or isinstance(found, Symbol):
        return None
    point = {symbol: Rational(500 + crc32(symbol.name.encode()) % 997, 1000) for symbol in found.free_symbols}
    try:
        value = complex(found.evalf(15, subs=point))
    except MemoryError:
        raise
    except Exception:
        return None
    return value if cmath.isfinite(value) else None


def _apart(a: complex | None, b: complex | None) -> bool:
    """Whether two expressions differ so much at one point that simplifying their difference is a waste of time."""
    if a is None or b is None:
        return False
    most = max(abs(a), abs(b))  # math-verify rounds to six decimals: to it anything small is 0
    return abs(a - b) > 1e-4 * (most if NOISE < most < 1 else max(1.0, most))


if __name__ == "__main__":
    main()
