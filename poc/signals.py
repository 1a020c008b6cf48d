"""Signs of a text gone wrong: loops, and letters of another script. Pure functions; no label, no model.

A repetition is a phrase of p <= LONGEST tokens that follows itself, with p such that ids[j] = ids[j - p] for at least
max(2 p, SHORTEST) consecutive j: three copies in a row, and for p = 1 or 2 at least SHORTEST + p tokens, as numbers
and indentation repeat a token now and then. A changed word ends the phrase: paraphrases and counting loops are missed.
"""

import unicodedata
from collections import Counter
from collections.abc import Sequence
from functools import lru_cache

import numpy as np

LONGEST, SHORTEST = 64, 5


def repetition(token_ids: Sequence[int]) -> float:
    """Share of the tokens that lie in a phrase repeated at least three times in a row, the first copy included."""
    ids = np.asarray(token_ids)
    inside = np.zeros(len(ids), dtype=bool)
    for period in range(1, min(LONGEST, len(ids) // 3) + 1):
        for start, end in _runs(ids[period:] == ids[:-period]):
            if end - start >= max(2 * period, SHORTEST):
                inside[start : end + period] = True
    return float(inside.mean()) if len(ids) else 0.0


def _runs(flags: np.ndarray) -> Sequence[tuple[int, int]]:
    """Start and end of every stretch of True."""
    edges = np.flatnonzero(np.diff(np.r_[False, flags, False]))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True))


def foreign(texts: Sequence[str], questions: Sequence[str]) -> float:
    """Share of the letters of all `texts` in scripts that no question uses; 0 where either side has no letters."""
    known, found = _scripts(questions), _scripts(texts)
    return sum(n for script, n in found.items() if script not in known) / found.total() if known and found else 0.0


def _scripts(texts: Sequence[str]) -> Counter[str]:
    """Letters by script. Compatibility forms (full width, mathematical bold) count as what they stand for."""
    letters = Counter("".join(texts))
    scripts = Counter()
    for letter, count in letters.items():
        if script := _script(letter):
            scripts[script] += count
    return scripts


@lru_cache(maxsize=65536)
def _script(character: str) -> str | None:
    """The first word of a letter's Unicode name (LATIN, CYRILLIC, CJK); None for what is no letter."""
    plain = unicodedata.normalize("NFKC", character)[:1]
    return unicodedata.name(plain, "UNKNOWN").split()[0] if plain.isalpha() else None
