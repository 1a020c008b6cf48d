"""Check a poc audit log: python audit_verify.py audit.jsonl [--head SEQ:HEX]...   (exit 0 whole, 1 broken, 2 usage)

Standard library only. One event a line, canonical JSON; "hash": SHA-256 of the event without it; "prev": the last one.
Shows what was edited, inserted, deleted or moved before a head that you kept elsewhere. Does not show, without one, an
end cut off or a log rewritten from the start; never who wrote it or whether it was true."""

import collections
import hashlib
import json
import re
import sys

FORMAT, START, LIMIT = "poc-audit-v1", "0" * 64, 16 * 2**20  # LIMIT: bytes of a line, its line break included
KEYS = {"data", "event", "hash", "prev", "seq", "time"}
ENCODER = json.JSONEncoder(sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False)
# incomplete: the last line has no line break; anchored: last event that a given head confirms; size: bytes of `events`
Result = collections.namedtuple("Result", "ok events head problem incomplete anchored size")


def parse_head(text: str) -> tuple[int, str]:
    if not re.fullmatch("[0-9]{1,15}:[0-9a-f]{64}", str(text)):
        raise ValueError(f"a head is the number of an event, a colon and 64 of 0-9a-f, not {str(text)[:90]!r}")
    return int(text[:-65]), text[-64:]


def digest(event: dict) -> str:
    content = ENCODER.encode({key: value for key, value in event.items() if key != "hash"})
    return hashlib.sha256(f"{FORMAT}\n{content}".encode("ascii")).hexdigest()


def check(line: bytes, seq: int, prev: str) -> tuple[dict, str | None]:
    """The event in `line` (no line break); what is wrong with it as event `seq` after one whose hash is `prev`."""
    try:
        event = json.loads(line.decode("ascii"))
        if ENCODER.encode(event).encode("ascii") != line or event.keys() != KEYS or type(event["data"]) is not dict:
            raise ValueError
    except (ValueError, AttributeError, RecursionError):
        return {}, "is not an event in canonical JSON"
    if event["hash"] != digest(event):
        return event, "was changed: its content is not what its hash says"
    if (event["seq"], event["prev"], event["event"] == "genesis") != (seq, prev, seq == 0):
        return event, f"is not event {seq} of this chain: events were deleted, inserted, moved or rewritten"
    return event, None


def verify(path, heads=(), seen=lambda event: None) -> Result:
    """Reads line by line; `heads` [(seq, hex)] must be in the chain; `seen` gets each good event. OSError: no file."""
    heads, found, events, last, size, problem = set(heads), set(), 0, START, 0, None
    with open(path, "rb") as file:
        while (line := file.readline(LIMIT)).endswith(b"\n") or len(line) == LIMIT:
            event, problem = check(line.removesuffix(b"\n"), events, last)
            if problem:
                break
            seen(event)
            found |= heads & {(events, event["hash"])}
            events, last, size = events + 1, event["hash"], size + len(line)
    incomplete = bool(line) and not problem
    if problem or not events:
        problem = f"line {events + 1} {problem or 'is not there in full: a log begins with its genesis'}"
    elif missing := sorted(heads - found):
        problem = f"line {missing[0][0] + 1} is not the head {missing[0][0]}:{missing[0][1]}: cut off or rewritten"
    head, anchored = f"{events - 1}:{last}" if events else None, max((seq for seq, _ in found), default=None)
    return Result(not problem, events, head, problem, incomplete, anchored, size)


def describe(result: Result) -> list[str]:
    torn = f"line {result.events + 1} is incomplete: its writer was killed or is still writing; this is not tampering"
    kept = f"anchored up to event {result.anchored} of {result.events - 1}: later ones cut off would not be noticed"
    none = "length not anchored: events cut off at the end would not be noticed"
    first = f"{result.events} events, chain whole, head {result.head}" if result.ok else f"BROKEN: {result.problem}"
    return [first, *[torn] * result.incomplete, *[none if result.anchored is None else kept] * result.ok]


if __name__ == "__main__":
    try:
        result = verify(sys.argv[1], [parse_head(word) for word in sys.argv[2:] if word != "--head"])
    except (IndexError, OSError, ValueError) as error:
        sys.exit(print(error, __doc__.splitlines()[0], sep="\n", file=sys.stderr) or 2)
    sys.exit(print(*describe(result), sep="\n") or not result.ok)
