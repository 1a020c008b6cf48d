"""What runs inside the sandbox, and how plain data leave it. Never imported into a process that must stay clean of
candidates except for `encode`; the sandbox runs this file's text with `python -I -S -c`.

In, on stdin: a Python literal (program, entry, inputs, bytes of memory), written by poc.scoring.sandbox. Out, on
stdout: "+" as soon as the sandbox stands, then one JSON object, {"outputs": [...]} or {"failed": why}, then the end.
No expected value ever comes in here: whatever the program does to this process, all that it can say is what it claims
to compute, and that is judged outside. So nothing here defends itself against the program.

Plain data as JSON: null, booleans, integers, finite floats, strings and lists as they are; everything else is an
object with one key: {"tuple": [...]}, {"set": [...]}, {"frozenset": [...]}, {"dict": [[key, value], ...]},
{"float": "nan"}, {"complex": ["1.0", "2.0"]}, {"bytes": "6f6b"}. Sets and dicts are written in a fixed order, so two
plain values have one text exactly if they are the same, type by type: True is not 1, 1.0 is not 1, (1,) is not [1].
Of an object of a subclass only the plain data count. It imports as little as it can: each start is paid for.
"""

import os
import sys

READY = b"+"
MAX_OUTPUT = 64 * 1024  # bytes of a whole result
MAX_DEPTH = 32  # nesting of a value
MAX_BITS = 8192  # of an integer: 2,466 digits
FILES = 32  # open at once


class NotPlain(ValueError):
    """A value that is not plain data, or too large or too deep."""


def encode(value, room: int = MAX_OUTPUT, depth: int = 0) -> str:
    """The JSON text of a plain value, ASCII, at most `room` characters. Raises NotPlain."""
    if depth > MAX_DEPTH:
        raise NotPlain("too deep")
    text = _written(value, room, depth)
    if len(text) > room:
        raise NotPlain("too large")
    return text


def _written(value, room: int, depth: int) -> str:
    if value is None or value is True or value is False:
        return {None: "null", True: "true", False: "false"}[value]
    kind = type(value)  # the real one: __class__ can lie
    if issubclass(kind, int):
        return _integer(value)
    if issubclass(kind, str):
        return _string(str.__str__(value), room)
    if issubclass(kind, list):
        return _array(list.__iter__(value), room, depth)
    return _tagged(kind, value, room, depth)


def _tagged(kind: type, value, room: int, depth: int) -> str:
    if issubclass(kind, float):
        text = float.__repr__(value)
        return text if text[-1] not in "nf" else '{"float":"' + text + '"}'
    if issubclass(kind, tuple):
        return '{"tuple":' + _array(tuple.__iter__(value), room, depth) + "}"
    if issubclass(kind, dict):
        return '{"dict":' + _array(dict.items(value), room, depth, in_order=False, pairs=True) + "}"
    if issubclass(kind, (set, frozenset)):
        base = set if issubclass(kind, set) else frozenset
        return '{"' + base.__name__ + '":' + _array(base.__iter__(value), room, depth, in_order=False) + "}"
    if issubclass(kind, bytes):
        return '{"bytes":' + _string(bytes.hex(value), room) + "}"
    if issubclass(kind, complex):
        return '{"complex":[' + ",".join(f'"{part!r}"' for part in (complex(value).real, complex(value).imag)) + "]}"
    raise NotPlain("no plain data")


def _integer(value: int) -> str:
    if int.bit_length(value) > MAX_BITS:
        raise NotPlain("too large")
    return int.__repr__(value)


def _string(text: str, room: int) -> str:
    if len(text) > room:
        raise NotPlain("too large")
    if text.isascii() and text.isprintable() and '"' not in text and "\\" not in text:
        return '"' + text + '"'
    units = text.encode("utf-16-be", "surrogatepass")
    return '"' + "".join(f"\\u{units[i]:02x}{units[i + 1]:02x}" for i in range(0, len(units), 2)) + '"'


def _array(items, room: int, depth: int, in_order: bool = True, pairs: bool = False) -> str:
    parts = []
    for item in items:
        parts.append(_array(item, room, depth + 1) if pairs else encode(item, room, depth + 1))
        room -= len(parts[-1]) + 1
        if room < 0:
            raise NotPlain("too large")
    return "[" + ",".join(parts if in_order else sorted(parts)) + "]"


def main() -> None:
    results = os.dup(1)
    program, entry, inputs, memory = eval(sys.stdin.read(), {"nan": float("nan"), "inf": float("inf")})
    _limit_resources(memory)
    os.environ.clear()
    null = os.open(os.devnull, os.O_RDWR)
    for descriptor in (0, 1, 2):
        os.dup2(null, descriptor)
    os.write(results, READY)
    reply = _reply(program, entry, inputs).encode("ascii")
    while reply:
        reply = reply[os.write(results, reply) :]
    os._exit(0)  # neither threads nor exit handlers get a last word


def _limit_resources(memory: int) -> None:
    """No file grows, no core is written, no process or thread is added (where the system counts them: not for root)."""
    import resource

    for name, most in (("AS", memory), ("FSIZE", 0), ("CORE", 0), ("NOFILE", FILES), ("NPROC", 1)):
        resource.setrlimit(getattr(resource, "RLIMIT_" + name), (most, most))


def _reply(program: str, entry, inputs: list) -> str:
    """Every input's output, or why there is none. An output is written down before the next input is tried."""
    try:
        function, outputs, room = _function(program, entry), [], MAX_OUTPUT - 64
        for arguments in inputs:
            outputs.append(encode(function(*arguments), room))
            room -= len(outputs[-1]) + 1
        return '{"outputs":[' + ",".join(outputs) + "]}"
    except BaseException as error:  # SystemExit and KeyboardInterrupt are failures too
        return '{"failed":' + _string(type(error).__name__[:60], 60) + "}"


def _function(program: str, entry):
    """The function `entry` that the program defines; without an entry the program is an expression in x."""
    if entry is None:
        expression = compile(program.strip(), "<program>", "eval")
        return lambda x: eval(expression, {"x": x})
    names = {"__name__": "program"}
    exec(compile(program, "<program>", "exec"), names)
    return names[entry]


if __name__ == "__main__":
    main()
