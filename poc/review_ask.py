"""Judging a sample in the terminal: one completion at a time, a line of input each.

What a model wrote is made visible, wrapped to the terminal's width and set behind a bar, so that no text can pass for
a line of this program. Long ones are cut and counted; `m` shows all. Not here: what becomes of a verdict (`record`).
"""

import shutil
from collections.abc import Callable, Sequence

from rich.cells import chop_cells

from poc.review import MAX_NOTE, Item, Said
from poc.text import clip, visible

LINES, CHARACTERS = 24, 1500  # of a text that are shown at once
BAR = "  │ "
VERDICTS = {"y": True, "n": False, "s": None}
SHOWN = {True: "right", False: "wrong", None: "cannot tell"}
KEYS = {key: word[0] for word in ("yes", "no", "skip", "back", "more", "quit") for key in (word, word[0])}
HELP = "y right · n wrong · s cannot tell · b back · m all of a long text · q later; words after y, n, s are a note"
QUESTION = "right? [y/n/s/b/m/q] "
KEEP = "right? [y/n/s/b/m/q, Enter keeps it] "
COMPARE = "all answered: Enter compares them with the verifier, b goes back, q ends without: "


def ask(
    items: Sequence[Item], said: dict[str, Said], record: Callable[[str, Said], None], *, show_gold: bool,
    read: Callable[[str], str] = input, say: Callable[[str], None] = print,
) -> bool:  # fmt: skip
    """Ask for each item that is not in `said`; whether all were answered and the reviewer is done.

    `record` keeps a verdict and puts it into `said`. False where the reviewer quits (q, or the input ends).
    """
    say(HELP)
    place, whole = _open(items, said), False
    while True:
        at_end = place == len(items)
        if not at_end:
            say(_card(items, place, said, show_gold, whole))
        prompt = COMPARE if at_end else KEEP if items[place].key in said else QUESTION
        key, note = _read(read, say, prompt)
        if key == "q" or (at_end and key == "enter"):
            return key == "enter"
        if key == "b":
            place = max(0, place - 1)
        elif key in VERDICTS:
            record(items[place].key, Said(VERDICTS[key], clip(note, MAX_NOTE)))
        whole = key == "m"
        if key in VERDICTS or key == "enter":
            place = _open(items, said)


def _open(items: Sequence[Item], said: dict[str, Said]) -> int:
    """The first that is not answered; their number where all are."""
    return next((place for place, item in enumerate(items) if item.key not in said), len(items))


def _read(read, say, prompt: str) -> tuple[str, str]:
    """One of the keys that the prompt offers, or enter, and the words behind it; asked again until it is one."""
    offered = {COMPARE: ("enter", "b", "q"), KEEP: ("enter", *KEYS.values()), QUESTION: tuple(KEYS.values())}[prompt]
    while True:
        try:
            word, _, note = read(prompt).strip().partition(" ")
        except EOFError:
            return "q", ""
        except UnicodeError:  # bytes that are no text
            word, note = "?", ""
        key = KEYS.get(word.lower(), "?") if word else "enter"
        if key in offered:
            return key, note.strip()
        say(HELP if prompt != COMPARE else "Enter, b or q")


def _card(items: Sequence[Item], place: int, said: dict[str, Said], show_gold: bool, whole: bool) -> str:
    """What is shown of one item."""
    item = items[place]
    parts = {"question": item.question, "known answer": item.gold if show_gold else None, "completion": item.text}
    answered = f", answered: {SHOWN[said[item.key].right]}" if item.key in said else ""
    shown = [f"{name}\n{_behind_bar(text, whole)}" for name, text in parts.items() if text is not None]
    return "\n".join(["", f"{place + 1} of {len(items)}{answered}", *shown])


def _behind_bar(text: str, whole: bool) -> str:
    text = visible(text).expandtabs(4)
    shown = text if whole else "\n".join(text.split("\n")[:LINES])[:CHARACTERS]
    width = max(20, shutil.get_terminal_size().columns - len(BAR))
    lines = [piece for line in shown.split("\n") for piece in chop_cells(line, width) or [""]]
    cut = len(text) - len(shown)
    return "\n".join([*(BAR + line for line in lines), *([f"  … {cut} more characters: m shows them"] if cut else [])])
