"""Which training questions are copies of measured ones: word for word, nearly so, or one inside the other.

Compared are tokens: words casefolded, numbers, and signs that carry meaning; quotes, sentence marks, white space and
the system message are put aside. Three kinds of copy, the first that holds:

    exact    the same tokens in the same order
    inside   one of the two stands whole in the other, the shorter being of 40 characters or more (GURU's rule)
    near     Jaccard similarity |A & B| / |A | B| of the sets of 3-token shingles >= 0.8, and the same data: the same
             numbers (also written as words) and runs of signs, each as often; other numbers in one template are other
             questions. Candidates come from MinHash (Broder 1997) with locality-sensitive hashing, then the exact
             similarity decides: pairs may be missed (1 in 8 at 0.8, 1 in 40 at 0.85, 1 in 1000 at 0.9), none made up.

Shingles that many questions share are the template (an instruction in front of every row), not the question, and are
left out of the similarity. What this does not see: paraphrases, translations, the same problem under other names.
"""

import re
import unicodedata
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal
from zlib import crc32

from poc.records import Example

SIMILAR = 0.8
INSIDE = 40  # characters
PERMUTATIONS, SEED = 128, 1
BANDS = (14, 9)  # datasketch's optimum for 0.8 where a copy missed weighs nine times a candidate too many
EXAMPLES = 3  # pairs named in a note

_JOINED = re.compile(r"(?<=[^\W\d_]{2})[-‐‑](?=[^\W\d_])|(?<=[^\W\d_])[-‐‑](?=[^\W\d_]{2})")  # well-known, not x-y
_SENTENCE = re.compile(r"(?<=[\w\"'”’)\]}%=])[.,;:?…]+(?=[\s\"'”’)\]]|$)|(?<=[^\W\d_])!(?=[\s\"'”’)\]]|$)")
_CJK = r"[\u3040-\u30ff\u3400-\u9fff\uac00-\ud7af]"  # written without spaces: by character
_TOKEN = re.compile(rf"[0-9]+(?:[.,][0-9]+)*|{_CJK}|(?:(?!{_CJK})[^\W\d_])+|[^\s]")
_RUN = re.compile(r"[^\w\s]{3,}")  # a row of a grid, say
_QUOTES = dict.fromkeys(map(ord, "\"'`“”‘’«»‹›„"))
_SIGNS = str.maketrans({"−": "-", "–": "-", "—": "-", "×": "*", "·": "*", "÷": "/"})
_UNITS = (
    "two three four five six seven eight nine ten eleven twelve thirteen fourteen fifteen sixteen seventeen eighteen "
    "nineteen"
)
NUMBER_WORDS = {word: str(n) for n, word in enumerate(_UNITS.split(), 2)} | {
    word: str(10 * n) for n, word in enumerate("twenty thirty forty fifty sixty seventy eighty ninety".split(), 2)
}

Kind = Literal["exact", "inside", "near"]


@dataclass(frozen=True)
class _Text:
    """One question as it is compared."""

    id: str
    tokens: tuple[str, ...]
    runs: tuple[str, ...]

    @cached_property
    def line(self) -> str:
        """The tokens with a blank around each, so that 12 is not inside 123."""
        return f" {' '.join(self.tokens)} "

    @cached_property
    def shingles(self) -> frozenset[tuple[str, ...]]:
        return frozenset(self.tokens[i : i + 3] for i in range(max(1, len(self.tokens) - 2)))

    @cached_property
    def data(self) -> Counter:
        """Numbers and runs of signs, with their counts."""
        values = (NUMBER_WORDS.get(token, token) for token in self.tokens)
        return Counter([*(value for value in values if value[0].isdigit()), *self.runs])


@dataclass(frozen=True, slots=True)
class Leak:
    """The training question `train` copies the measured question `measured` (ids)."""

    train: str
    measured: str
    kind: Kind


@dataclass(frozen=True, slots=True)
class Leaks:
    """`found`: one for each training question that leaks; `copies`: near or exact copies within train, counted only."""

    found: tuple[Leak, ...]
    copies: int

    def note(self) -> dict:
        """Counts by kind and up to three pairs of ids, for environment.json: no text of the user's."""
        kinds = Counter(leak.kind for leak in self.found)
        pairs = [[leak.train, leak.measured, leak.kind] for leak in self.found[:EXAMPLES]]
        return {"left_out": len(self.found), **kinds, "examples": pairs, "copies_within_train": self.copies}


def check(train: Sequence[Example], measured: Sequence[Example]) -> Leaks:
    """Every training question that copies a measured one, and how many of the others copy an earlier one of train."""
    return without_copies(train, measured, len(train))[1]


def without_copies(
    questions: Sequence[Example], measured: Sequence[Example], count: int
) -> tuple[list[Example], Leaks]:
    """The first `count` questions that copy no measured one, and the leaks that were passed over on the way."""
    index, kept, found = Index(measured), [], []
    for example in questions:
        if len(kept) == count:
            break
        leak = index.find(example)
        (kept if leak is None else found).append(leak or example)
    return kept, Leaks(tuple(found), index.copies(kept))


def tokens_of(text: str) -> tuple[str, ...]:
    """What is compared of a question: "The well-known 1,000 apples!" -> ("the", "well", "known", "1000", "apples")."""
    text = "".join(char for char in unicodedata.normalize("NFKC", text) if unicodedata.category(char) != "Cf")
    text = _SENTENCE.sub(" ", text.casefold().translate(_SIGNS)).translate(_QUOTES)
    return tuple(_plain(token) for token in _TOKEN.findall(_JOINED.sub(" ", text)))


def _text(example: Example) -> _Text:
    if isinstance(example.question, str):
        text = example.question
    else:
        text = "\n".join(turn["content"] for turn in example.question if turn["role"] != "system")
    return _Text(example.id, tokens_of(text), tuple(_RUN.findall(text)))


def _plain(token: str) -> str:
    """1,000 is 1000; 1,2 stays a pair."""
    return token.replace(",", "") if re.fullmatch(r"[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?", token) else token


class Index:
    """The measured questions, arranged so that copies of them are found quickly."""

    def __init__(self, measured: Iterable[Example]) -> None:
        self.texts = [*map(_text, measured)]
        self.exact = {text.tokens: text for text in reversed(self.texts)}
        self.lines = "\n".join(text.line for text in self.texts)
        self.starts = [0]
        for text in self.texts:
            self.starts.append(self.starts[-1] + len(text.line) + 1)
        self.opening: dict[tuple, list[_Text]] = {}  # long questions by their first shingle
        for text in self.texts:
            if len(text.line) >= INSIDE + 2:
                self.opening.setdefault(text.tokens[:3], []).append(text)
        self.template = _template(self.texts)
        self.near = _Near(self.template)
        for text in self.texts:
            self.near.add(text)

    def find(self, example: Example) -> Leak | None:
        """The copy that a training question is, if it is one."""
        text = _text(example)
        ways = ("exact", self._exact), ("inside", self._inside), ("near", self.near.find)
        for kind, way in ways:
            if other := way(text):
                return Leak(text.id, other.id, kind)
        return None

    def _exact(self, text: _Text) -> _Text | None:
        return self.exact.get(text.tokens)

    def _inside(self, text: _Text) -> _Text | None:
        if len(text.line) >= INSIDE + 2 and (place := self.lines.find(text.line)) >= 0:
            return self.texts[bisect_right(self.starts, place) - 1]
        opened = (other for start in self.opening.keys() & text.shingles for other in self.opening[start])
        return next((other for other in opened if other.line in text.line), None)

    def copies(self, examples: Iterable[Example]) -> int:
        """How many of `examples` are exact or near copies of an earlier one."""
        seen: set[tuple[str, ...]] = set()
        near, count = _Near(self.template), 0
        for text in map(_text, examples):
            if text.tokens in seen or near.find(text):
                count += 1
            else:
                near.add(text)
            seen.add(text.tokens)
        return count


def _template(texts: Sequence[_Text]) -> frozenset[tuple[str, ...]]:
    """Shingles in more than 5 % of the questions: more than ten of them, in small sets more than half."""
    count = len(texts)
    most = max(2, min(count / 2, max(10, count / 20)))
    return frozenset(x for x, n in Counter(x for text in texts for x in text.shingles).items() if n > most)


class _Near:
    """Texts by MinHash signature."""

    def __init__(self, template: frozenset) -> None:
        from datasketch import MinHashLSH

        self.template = template
        self.texts: list[tuple[_Text, frozenset]] = []
        self.buckets = MinHashLSH(num_perm=PERMUTATIONS, params=BANDS)

    def add(self, text: _Text) -> None:
        own = text.shingles - self.template
        if own:
            self.buckets.insert(len(self.texts), self._signature(own), check_duplication=False)
            self.texts.append((text, own))

    def find(self, text: _Text) -> _Text | None:
        """The first text that was added and that `text` is a near copy of."""
        own = text.shingles - self.template
        candidates = sorted(self.buckets.query(self._signature(own))) if own else []
        near = (other for other, theirs in (self.texts[i] for i in candidates)
                if len(own & theirs) >= SIMILAR * len(own | theirs) and text.data == other.data)  # fmt: skip
        return next(near, None)

    def _signature(self, shingles: frozenset):
        from datasketch import MinHash

        found = MinHash(num_perm=PERMUTATIONS, seed=SEED, hashfunc=crc32)
        found.update_batch([" ".join(shingle).encode() for shingle in shingles])
        return found
