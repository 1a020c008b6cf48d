"""Rows of MBPP and HumanEval -> problems of the code domain.

Their tests are Python text. It is parsed, never run: what a test calls its function with and what it wants back must be
literals. Turned are, for f under test: `assert f(args) == literal`, `is True`, `is False`, `is None`, `assert f(args)`,
`assert not f(args)`, `abs(f(args) - literal) < literal` and `math.isclose(f(args), literal, rel_tol=...)`. A row with
any other test is a ValueError that names the line: half of a row's tests would be another problem. The first eight
count. The public sets compare by ==, so True passes for 1 and 1.0 for 1 here, and a list is still no tuple.
"""

import ast
import json
import math
from typing import Any

from poc.scoring import inside
from poc.scoring.sandbox import MAX_INPUTS
from poc.tasks.problem import Problem

MAX_SOURCE = 100_000  # characters of a row's code or tests


def mbpp(values: dict[str, Any]) -> Problem:
    """A row with `text` or `prompt`, `code`, `test_list` (a list of texts) and optionally `test_setup_code` and
    `challenge_test_list`. The function's signature and the first test are told. Raises ValueError."""
    lines = [*_column(values, "test_list", list), *_optional(values, "challenge_test_list", list)]
    found = [test for i, line in enumerate(lines) for test in _tests(_parsed(line, f"test {i + 1}"), line)]
    entry = _one_name(found)
    code = _column(values, "code", str)
    asked = _column(values, "text" if values.get("text") else "prompt", str)
    question = f"{asked.strip()}\nFor example: {lines[0].strip()}\n{_signature(code, entry)}"
    return _problem(question, code, entry, found, _optional(values, "test_setup_code", str))


def humaneval(values: dict[str, Any]) -> Problem:
    """A row with `prompt`, `canonical_solution`, `test` (a text that defines check(candidate)) and `entry_point`.

    The prompt runs before every answer, so that its imports and helpers are there. Raises ValueError.
    """
    prompt, test = _column(values, "prompt", str), _column(values, "test", str)
    checks = [node for node in _parsed(test, "test").body if isinstance(node, ast.FunctionDef) and node.name == "check"]
    if len(checks) != 1 or len(checks[0].args.args) != 1:
        raise ValueError("test: no single check(candidate)")
    found = [(args, *rest) for name, args, *rest in _tests(checks[0], test) if _named(name, checks[0].args.args[0].arg)]
    entry = _column(values, "entry_point", str)
    gold = prompt + _column(values, "canonical_solution", str)
    return _problem(prompt, gold, entry, [(entry, *test) for test in found], prompt)


def _problem(question: str, gold: str, entry: str, found: list[tuple], setup: str) -> Problem:
    if not found:
        raise ValueError("no test that tests anything")
    check = {"entry": entry, "setup": setup, "tests": [list(test[1:]) for test in found[:MAX_INPUTS]]}
    return Problem(question, gold, "", question, json.dumps(check))


def _column(values: dict[str, Any], name: str, kind: type) -> Any:
    if not isinstance(values.get(name), kind) or not values[name]:
        raise ValueError(f"{name}: missing or no {'text' if kind is str else 'list'}")
    return values[name]


def _optional(values: dict[str, Any], name: str, kind: type) -> Any:
    return _column(values, name, kind) if values.get(name) else kind()


def _named(name: str, wanted: str) -> bool:
    if name != wanted:
        raise ValueError(f"a test calls {name!r}, not {wanted!r}")
    return True


def _one_name(found: list[tuple]) -> str:
    names = sorted({name for name, *_ in found})
    if len(names) != 1:
        raise ValueError(f"the tests call {', '.join(names) or 'nothing'}: one function is needed")
    return names[0]


def _parsed(source: Any, where: str) -> ast.Module:
    if not isinstance(source, str) or len(source) > MAX_SOURCE:
        raise ValueError(f"{where}: no text of at most {MAX_SOURCE} characters")
    try:
        return ast.parse(source)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        raise ValueError(f"{where}: not Python ({type(error).__name__})") from None


def _signature(code: str, entry: str) -> str:
    for node in ast.walk(_parsed(code, "code")):
        if isinstance(node, ast.FunctionDef) and node.name == entry:
            try:
                return f"def {entry}({ast.unparse(node.args)}):"
            except (RecursionError, MemoryError, ValueError):
                raise ValueError(f"code: the arguments of {entry!r} cannot be shown") from None
    raise ValueError(f"code: does not define {entry!r}, which the tests call")


def _tests(body: ast.Module | ast.FunctionDef, source: str) -> list[tuple]:
    """(name called, arguments, wanted, rule) for each assert; `assert True` and bare literals test nothing."""
    found = []
    for node in body.body:
        if _tests_nothing(node):
            continue
        try:
            if not isinstance(node, ast.Assert):
                raise ValueError("no assert")
            found.append(_turned(node.test))
        except (ValueError, TypeError, SyntaxError, RecursionError, MemoryError):
            line = source.splitlines()[node.lineno - 1].strip()
            raise ValueError(f"line {node.lineno}: this test cannot be turned into data: {line[:80]!r}") from None
    return found


def _tests_nothing(node: ast.stmt) -> bool:
    match node:
        case ast.Expr(value=ast.Constant()) | ast.Assert(test=ast.Constant(value=True)):
            return True
    return False


def _turned(test: ast.expr) -> tuple:
    match test:
        case ast.Compare(left=left, ops=[ast.Lt()], comparators=[limit]) if _calls(left, "abs"):
            return _close(left, limit)
        case ast.Compare(left=call, ops=[ast.Eq()], comparators=[wanted]):
            return (*_call(call), _data(wanted), "==")
        case ast.Compare(left=call, ops=[ast.Is()], comparators=[ast.Constant(value=None | True | False) as wanted]):
            return (*_call(call), wanted.value)
        case ast.UnaryOp(op=ast.Not(), operand=call):
            return (*_call(call), False, "bool")
        case ast.Call(func=ast.Attribute(value=ast.Name(id="math"), attr="isclose"), args=[call, wanted]):
            (tolerance,) = [k.value for k in test.keywords if k.arg == "rel_tol"] if len(test.keywords) == 1 else [None]
            return (*_call(call), _data(wanted), {"rel": 1e-9 if tolerance is None else _tolerance(tolerance)})
    return (*_call(test), True, "bool")


def _close(left: ast.expr, limit: ast.expr) -> tuple:
    match left.args:
        case [ast.BinOp(left=call, op=ast.Sub(), right=wanted)]:
            return (*_call(call), _number(wanted), {"abs": _tolerance(limit)})
    raise ValueError("no difference")


def _calls(node: ast.expr, name: str) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == name


def _call(node: ast.expr) -> tuple[str, list]:
    """(name, arguments as data) of a call with positional literal arguments."""
    match node:
        case ast.Call(func=ast.Name(id=name), args=args, keywords=[]):
            return name, [_data(argument) for argument in args]
    raise ValueError("no call")


def _data(node: ast.expr) -> Any:
    """The literal as parsed JSON, other types tagged (poc.scoring.inside)."""
    return json.loads(inside.encode(ast.literal_eval(node)))


def _number(node: ast.expr) -> int | float:
    value = ast.literal_eval(node)
    if type(value) not in (int, float) or not math.isfinite(value):
        raise ValueError("no number")
    return value


def _tolerance(node: ast.expr) -> int | float:
    if (value := _number(node)) < 0:
        raise ValueError("a tolerance below 0")
    return value
