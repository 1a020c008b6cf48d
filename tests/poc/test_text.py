"""What may be shown: nothing that moves a cursor, hides or reorders text."""

import sys
import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from poc.text import clip, visible

HIDDEN = {"Cc", "Cf", "Cs", "Zl", "Zp"}


def test_every_control_format_and_surrogate_character_is_shown_as_an_escape():
    every = [chr(i) for i in range(sys.maxunicode + 1)]
    shown = [c for c in every if unicodedata.category(c) in HIDDEN and c not in "\n\t" and visible(c) == c]
    assert shown == []


def test_known_escapes_and_plain_text():
    assert visible("\x1b[2J\x9b\x00\r") == "\\x1b[2J\\x9b\\x00\\x0d"
    assert visible("a\u202eb\u2066\u200b\U000e0041\ud800") == "a\\u202eb\\u2066\\u200b\\U000e0041\\ud800"
    plain = "naïve 日本語\u3000 “quotes” 95\u00a0% \t\n"
    assert visible(plain) == plain


@given(st.text())
def test_the_result_is_stable_and_can_be_written(text):
    assert visible(visible(text)) == visible(text)
    visible(text).encode("utf-8")


def test_clip_counts_what_it_cuts():
    assert clip("abcdef", 6) == "abcdef"
    assert clip("abcdefg", 3) == "abc … [4 more characters]"
