"""`poc domains`: what the domains ask, how it is judged, and whether any scorer can be fooled.

Questions are drawn as training draws them; whatever is printed goes through poc.text. Nothing is written.
"""

import inspect
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from random import Random

from rich.table import Table

from poc.config import DOMAIN_LEVELS, Data, nearest
from poc.display import console
from poc.records import InputError
from poc.redteam import Attack
from poc.siege import LATE, LIMIT, Siege
from poc.tasks import DOMAINS, PATIENCE, own, split_of
from poc.tasks.problem import Problem
from poc.text import clip, visible

SANDBOXED = ("code",)  # domains whose answers are programs
SHOWN = 3  # questions in full
MEASURED = 1_000  # draws over which uniqueness is stated
CUT = 56  # characters of a question in the table
CUT_ATTACK = 80  # characters of a text that got through
COLUMNS = (
    "domain",
    "level",
    "attacks",
    "passed",
    "honest refused",
    "paid",
    "raised",
    "slowest",
    "mean",
    "side effects",
)


def show(name: str | None, level: int | None, seed: int) -> None:
    """Print the domains and their levels, or with a level three of its questions in full and how many there are.

    Raises InputError for an unknown domain or level, or a level without a domain.
    """
    _check(name, level, DOMAINS)
    if level is not None:
        return print("\n".join(_details(name, level, seed)))
    rows = [row for domain in ([name] if name else DOMAINS) for row in _levels(domain, seed)]
    _print(("domain", "level", "asks", "for example", "right is", "sandbox"), rows)
    print(
        "Three questions in full, and how many there are: poc domains NAME --level N. Attacked: poc domains --attack."
    )


def attack(name: str | None) -> int:
    """Send the red team's corpus to every scorer, or to one domain's ("own": that of the user's files); print a table.

    1 if an attack passes, is paid, raises or leaves something behind, or an honest answer is refused, else 0. A level
    that cannot be attacked here (no sandbox, a library missing) is named and counts as nothing.
    """
    _check(name, None, (*DOMAINS, own.NAME))
    sieges, rows = [], []
    for domain, level, questions in _targets([name] if name else [*DOMAINS, own.NAME]):
        try:
            found = _besieged(domain, questions)
        except InputError as error:
            rows.append((domain, level, "0", *["-"] * 6, f"SKIPPED: {error}"))
            continue
        sieges += found
        rows.append((domain, level, *_summary(found)))
    _print(COLUMNS, rows)
    for line in _losses(sieges):
        print(line)
    print(_conclusion(sieges))
    return 0 if all(siege.held for siege in sieges) else 1


def _check(name: str | None, level: int | None, known: Iterable[str]) -> None:
    if name is not None and name not in known:
        raise InputError(f"domains: unknown {visible(name)!r}{nearest(name, known)}")
    if level is not None and name is None:
        raise InputError(f"--level {level}: of which domain? One of {', '.join(DOMAINS)}")
    if level is not None and level not in range(DOMAIN_LEVELS[name]):
        raise InputError(f"--level {level}: {name} has levels 0 to {DOMAIN_LEVELS[name] - 1}")


def _problem(domain: str, seed: int, index: int, level: int) -> Problem:
    """What poc.tasks.draw draws, with its worked answer."""
    return DOMAINS[domain].make(Random(f"{domain}/{seed}/{level}/{index}"), level)


def _levels(domain: str, seed: int) -> Iterable[tuple[str, ...]]:
    module = DOMAINS[domain]
    judged = re.split(r"\.(?:\s|$)", " ".join(inspect.getdoc(module.score).split()))[0]
    sandbox = "needed" if domain in SANDBOXED else "no"
    for level, asks in zip(module.LEVELS, module.DESCRIPTIONS, strict=True):
        question = " ".join(_problem(domain, seed, 0, level).question.split())
        yield domain, str(level), asks, visible(clip(question, CUT)), "" if level else judged, sandbox


def _details(domain: str, level: int, seed: int) -> Iterable[str]:
    module = DOMAINS[domain]
    yield f"{domain}, level {level}: {module.DESCRIPTIONS[level]}"
    yield f"told beside the question: {visible(module.instruction(level))}"
    for index in range(SHOWN):
        problem = _problem(domain, seed, index, level)
        yield f"\nQuestion {index + 1}\n{visible(problem.question)}\nWorked answer\n{visible(problem.worked)}"
    different, splits, draws = reachable(domain, level, seed)
    yield f"\nDifferent questions among {MEASURED:,} draws: {different:,} ({different / MEASURED:.1%})"
    counts = ", ".join(f"{splits[split]:,} {split}" for split in ("train", "holdout", "canary"))
    yield f"Different questions found in {draws:,} draws: {counts}"


def reachable(domain: str, level: int, seed: int) -> tuple[int, Counter, int]:
    """(different questions among the first 1,000 draws, different ones by split, draws made).

    Drawing goes on until every split holds as many as a run asks for by default, at most 5,000 draws.
    """
    wanted = {split: Data.model_fields[split].default for split in ("train", "holdout", "canary")}
    seen: set[str] = set()
    splits, different = Counter(), 0
    for index in range(PATIENCE):
        problem = _problem(domain, seed, index, level)
        if problem.question not in seen:
            seen.add(problem.question)
            splits[split_of(problem.key)] += 1
        different = len(seen) if index < MEASURED else different
        if index + 1 >= MEASURED and all(splits[split] >= count for split, count in wanted.items()):
            break
    return different, splits, index + 1


def _targets(names: Sequence[str]) -> Iterable[tuple[str, str, object]]:
    """(domain, level, a function that draws the questions)"""
    from poc.redteam import examples, standing

    for name in names:
        for level in DOMAINS[name].LEVELS if name in DOMAINS else ():
            yield name, str(level), lambda name=name, level=level: examples(name, level)
        if any(example.domain == name for example in standing()):
            yield name, "file", lambda name=name: [example for example in standing() if example.domain == name]


def _besieged(domain: str, questions) -> list[Siege]:
    from poc.scoring import sandbox
    from poc.siege import besiege

    if domain in SANDBOXED and sandbox.level() == "none":
        raise InputError(f"no sandbox on this machine: {sandbox.INSTALL}")
    found = []
    for example in questions():
        with console.status(f"{domain} level {example.level}: {visible(clip(example.id, CUT))}"):
            found.append(besiege(example))
    return found


def _summary(sieges: Sequence[Siege]) -> tuple[str, ...]:
    times = [seconds for siege in sieges for seconds, _ in siege.seconds]
    counts = (sum(len(getattr(siege, what)) for siege in sieges) for what in ("passed", "refused", "paid", "raised"))
    late = " LATE" if max(times) > LIMIT + LATE else ""
    effects = "; ".join(dict.fromkeys(effect for siege in sieges for effect in siege.effects)) or "none"
    timing = (f"{max(times):.2f} s{late}", f"{1000 * sum(times) / len(times):.1f} ms")
    return str(sum(siege.attacks for siege in sieges)), *map(str, counts), *timing, effects


def _losses(sieges: Sequence[Siege]) -> Iterable[str]:
    for siege in sieges:
        where = f"{siege.example.domain} {siege.example.level} ({siege.example.id})"
        lost = [("PASSED", a) for a in siege.passed] + [("HONEST, REFUSED", a) for a in siege.refused]
        payers: dict[Attack, list[str]] = {}
        for reward, paid in siege.paid:
            payers.setdefault(paid, []).append(reward)
        lost += [(f"PAID by {', '.join(names)}", a) for a, names in payers.items()] + [
            ("RAISED", a) for a in siege.raised
        ]
        for what, (kind, text) in lost:
            yield f"{where} {what}: {visible(clip(kind, CUT_ATTACK))}: {_line(text)}"


def _line(text: str) -> str:
    """One line of at most 80 characters, whatever the text holds."""
    return clip(visible(clip(text, CUT_ATTACK)).replace("\n", "\\n").replace("\t", "\\t"), CUT_ATTACK)


def _conclusion(sieges: Sequence[Siege]) -> str:
    broken = sum(not siege.held for siege in sieges)
    attacks = f"{sum(siege.attacks for siege in sieges):,} attacks on {len(sieges)} questions"
    return f"{attacks}: {f'{broken} questions were not defended' if broken else 'all held'}"


def _print(head: tuple[str, ...], rows: Iterable[tuple[str, ...]]) -> None:
    """A table in a terminal, plain lines elsewhere."""
    if not console.is_terminal:
        for row in [head, *rows]:
            print(" · ".join(row))
        return
    table = Table(*head)
    for row in rows:
        table.add_row(*row)
    console.print(table, markup=False)
