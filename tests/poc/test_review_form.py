"""The forms of a review: blind, harmless whatever a model wrote, and read back with the place of a mistake."""

import base64
import csv
import hashlib
import io
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poc.records import InputError
from poc.review import Item, Said
from poc.review_form import cell, csv_form, html_form, read_back
from tests.poc.fake_runs import HOSTILE, Page
from tests.poc.reviews import drawn, items

MARK = "ab" * 32
HIDDEN = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")


def hostile() -> list[Item]:
    texts = [
        *HOSTILE,
        "\nfirst line empty",
        '"><fieldset data-item="c00"><input checked value="y">',
        "-1+cmd|' /C x'!A0",
    ]
    return [Item(f"c{n:02}", f"q{n}", text, text, text, "end", True) for n, text in enumerate(texts)]


def page(found=None, **options) -> str:
    options = {"show_gold": False, "name": "run", "reviewer": "", "sample": MARK} | options
    return html_form(drawn() if found is None else found, **options).decode()


def rows(content: bytes, mark: str = ",") -> list[list[str]]:
    return list(csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""), delimiter=mark))


def filled(content: bytes, verdicts, notes=(), mark: str = ",") -> bytes:
    """The form as a spreadsheet saves it."""
    table, out = rows(content), io.StringIO(newline="")
    for number, line in enumerate(table[1:]):
        line[-2] = verdicts[number] if number < len(verdicts) else ""
        line[-1] = notes[number] if number < len(notes) else ""
    csv.writer(out, delimiter=mark, lineterminator="\r\n").writerows(table)
    return out.getvalue().encode("utf-8-sig")


def put(path, content):
    path.write_bytes(content if isinstance(content, bytes) else json.dumps(content).encode())
    return path


# -------------------------------------------------------------------------------------------------------------- CSV


@pytest.mark.parametrize("mark", [",", ";", "\t"])
def test_a_table_comes_back_as_it_was_filled_in(tmp_path, mark):
    found = drawn(6)
    form = filled(
        csv_form(found, False), ["y", "N", " wrong ", "s", "", "TRUE"], ["", 'of "units"; or', "", "", "?"], mark
    )
    reviewer, said = read_back(put(tmp_path / "a.csv", form), found, MARK)
    keys = [item.key for item in found]
    assert reviewer == "" and said == {
        keys[0]: Said(True), keys[1]: Said(False, 'of "units"; or'), keys[2]: Said(False), keys[3]: Said(None),
        keys[4]: Said(None, "?"), keys[5]: Said(True),
    }  # fmt: skip


def test_the_table_is_blind_and_has_the_gold_only_if_asked():
    found = items(True, False)
    header, *lines = rows(csv_form(found, False))
    assert header == ["number", "item", "question", "completion", "verdict", "note"]
    assert lines == [["1", "c00", "0?", "text 0", "", ""], ["2", "c01", "1?", "text 1", "", ""]]
    assert rows(csv_form(found, True))[1] == ["1", "c00", "0?", "7", "text 0", "", ""]


@pytest.mark.parametrize(
    "text", ["=1+1", "+1", "-1", "@SUM(A1)", "\t=1", " =1", "\n=1", '"=1', "'=1", "＝1", "－1", "-5", "\tx"]
)
def test_no_cell_is_a_formula(text):
    assert cell(text) == f"'{text}"
    assert cell("1 - 1 = 0") == "1 - 1 = 0" and cell("") == "" and cell("\r=1") == "\\x0d=1"


@given(st.text())
def test_cells_begin_with_nothing_that_computes_and_hide_nothing(text):
    shown = cell(text)
    assert shown[:1] not in tuple("=+-@\t\r") and not HIDDEN.search(shown)


def test_a_hostile_table_is_harmless_and_still_one_row_an_item(tmp_path):
    found = hostile()
    content = csv_form(found, True)
    lines = rows(content)[1:]
    assert [line[1] for line in lines] == [item.key for item in found]
    texts = [text for line in lines for text in line[2:5]]
    assert not any(text[:1] in tuple("=+-@\t\r") for text in texts)
    assert not HIDDEN.search(content.decode("utf-8-sig").replace("\r\n", "\n"))
    assert "'=HYPERLINK(" in content.decode("utf-8-sig") and max(map(len, texts)) < 32_767
    notes = ["\x1b]0;x\x07", "=1", "</script>"]
    _, said = read_back(put(tmp_path / "a.csv", filled(content, ["n"] * 3, notes)), found, MARK)
    assert [said[item.key].note for item in found[:3]] == notes  # data; shown through poc.text only


def test_a_long_text_fits_a_cell():
    assert cell("\x00" * 40_000).endswith("more characters]") and len(cell("\x00" * 40_000)) < 32_767


BAD = {
    "unknown": ("item,verdict,note\nc99,y,\n", "line 2: item 'c99' is not in this sample"),
    "twice": ("item,verdict,note\nc00,y,\nc01,n,\nc00,y,\n", "line 4: item 'c00' stands in "),
    "twice, once empty": ("item,verdict\nc00,y\nc00,\n", "line 3: item 'c00' stands in "),
    "no verdict": ("item,verdict,note\nc00,perhaps,\n", "line 2: verdict 'perhaps': write y (right), n (wrong)"),
    "after many lines": ('item,completion,verdict\nc00,"a\nb\n\nc",y\nc01,d,maybe\n', "line 6: verdict 'maybe'"),
    "escapes": ("item,verdict\nc00,\x1b[2J\u202e\n", "verdict '\\x1b[2J\\u202e'"),
    "no item column": ("number,verdict\n1,y\n", "line 1: 0 columns named 'item'"),
    "two verdict columns": ("item,verdict,verdict\nc00,y,n\n", "line 1: 2 columns named 'verdict'"),
    "nothing": ("", "0 columns named 'item'"),
    "not filled in": ("item,verdict,note\nc00,,\nc01,s,\n", "holds no verdict: fill in y"),
    "open quote": ('item,verdict\nc00,"y\n', "line 2: not CSV"),
}


@pytest.mark.parametrize("content, names", BAD.values(), ids=BAD)
def test_a_wrong_table_names_its_line(tmp_path, content, names):
    with pytest.raises(InputError) as caught:
        read_back(put(tmp_path / "a.csv", content.encode()), items(True, True), MARK)
    assert names in str(caught.value) and "\n" not in str(caught.value) and not HIDDEN.search(str(caught.value))


def test_what_is_no_text_names_its_line_too(tmp_path):
    with pytest.raises(InputError, match="line 3: is not UTF-8: save it as CSV UTF-8"):
        read_back(put(tmp_path / "a.csv", b"item,verdict\nc00,y\nc01,\xe4\n"), items(True, True), MARK)
    with pytest.raises(InputError, match="No such file"):
        read_back(tmp_path / "gone.csv", items(True), MARK)


# ------------------------------------------------------------------------------------------------------------- JSON


def saved(*verdicts, **changed) -> dict:
    """What the page saves."""
    listed = [{"item": key, "verdict": verdict, "note": note} for key, verdict, note in verdicts]
    return {"version": 1, "sample_sha256": MARK, "reviewer": "Ada", "verdicts": listed} | changed


def test_what_the_page_saved_comes_back(tmp_path):
    content = saved(("c00", "y", ""), ("c01", "n", " why \u202e"), ("c02", "", ""), ("c03", "s", ""))
    reviewer, said = read_back(put(tmp_path / "a.json", content), items(*[True] * 4), MARK)
    assert reviewer == "Ada" and said == {"c00": Said(True), "c01": Said(False, "why \u202e"), "c03": Said(None)}


BAD_JSON = {
    "not JSON": (b'{"version": 1,\n"verdicts": [', "line 2: is not JSON"),
    "deep": (b"[" * 100_000, "is not JSON"),
    "a list": ([], "no list of verdicts"),
    "another sample": (saved(("c00", "y", ""), sample_sha256="cd" * 32), "was saved for another sample"),
    "no sample": (saved(("c00", "y", ""), sample_sha256=None), "was saved for another sample"),
    "unknown": (saved(("c00", "y", ""), ("c77", "y", "")), "verdict 2: item 'c77' is not in this sample"),
    "twice": (saved(("c00", "y", ""), ("c00", "y", "")), "verdict 2: item 'c00' stands in"),
    "no verdict": (saved(("c00", "yess", "")), "verdict 1: verdict 'yess'"),
    "wrong type": (saved(("c00", True, "")), "verdict 1: {'item': 'c00'"),
    "no object": (saved(verdicts=[7]), "verdict 1: 7 has no texts"),
}


@pytest.mark.parametrize("content, names", BAD_JSON.values(), ids=BAD_JSON)
def test_a_wrong_file_names_its_place(tmp_path, content, names):
    with pytest.raises(InputError) as caught:
        read_back(put(tmp_path / "a.json", content), items(True), MARK)
    assert names in str(caught.value) and "\n" not in str(caught.value)


def test_names_and_notes_of_any_kind_are_taken_but_cut(tmp_path):
    content = saved(("c00", "n", "x" * 10_000), reviewer=["Ada"])
    reviewer, said = read_back(put(tmp_path / "a.json", content), items(True), MARK)
    assert reviewer == "" and len(said["c00"].note) < 550


# ------------------------------------------------------------------------------------------------------------- HTML


def test_the_page_is_blind():
    text = page(items(True, False, model="end"))
    assert not re.search("verifier\\W+(said )?(right|wrong)|correct|trained", text) and ">7<" not in text
    assert text == page(items(False, True, model="start"))
    assert "Known answer" in page(items(True), show_gold=True) and "Known answer" not in text


def test_every_item_can_be_judged_from_the_keyboard_and_has_labels():
    found = drawn(6)
    text = page(found)
    assert re.findall('<fieldset data-item="(.*?)">', text) == [item.key for item in found]
    for number in range(1, 7):
        values = re.findall(f'<label><input type="radio" name="v{number}" value="(.)">', text)
        assert values == ["y", "n", "s"] and f"<legend>{number} of 6</legend>" in text
    assert text.count('<label class="field">Note') == 6 and 'aria-label="Completion 6"' in text
    assert 'name="viewport" content="width=device-width' in text and '<html lang="en">' in text


def test_the_policy_allows_the_pages_own_script_and_style_and_nothing_else():
    text = page(hostile())
    policy = re.search('http-equiv="Content-Security-Policy" content="(.*?)"', text)[1].replace("&#39;", "'")
    for tag in ("script", "style"):
        (content,) = re.findall(f"<{tag}>(.*?)</{tag}>", text, re.DOTALL)
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        assert f"{tag}-src 'sha256-{digest}';" in policy
    assert policy.startswith("default-src 'none'; ") and "unsafe" not in policy and "http" not in policy


def test_hostile_texts_add_no_element_and_no_attribute():
    """In questions, completions, gold, run name and reviewer's name."""
    evil = "".join(HOSTILE)
    plain, bad = Page(page(items(*[True] * len(hostile())), show_gold=True)), page(
        hostile(), show_gold=True, name=evil, reviewer=evil)  # fmt: skip
    parsed = Page(bad)
    assert parsed.tags == plain.tags and len(parsed.attributes) == len(plain.attributes)
    assert not [key for key, _ in parsed.attributes if key.startswith("on") or key in ("src", "href", "action")]
    assert not HIDDEN.search(bad) and bad.count("<script") == 1 and bad.count("</script") == 1
    assert "{{7*7}}" in bad
    assert "\\u202egnp.exe" in bad and "\\x1b]0;title\\x07" in bad


def test_the_page_holds_no_address_and_what_it_saves_names_the_sample():
    text = page(reviewer='Ada "L"')
    assert not re.search("https?:|//[a-z]|@import|url\\(", text.replace("file://", ""))
    assert f'data-sample="{MARK}"' in text and 'value="Ada &#34;L&#34;"' in text


def test_with_scripts_off_the_page_says_so():
    text = page()
    assert "--csv FILE" in re.search("<noscript>(.*?)</noscript>", text)[1] and '<div class="bar" hidden>' in text


def test_an_empty_first_line_is_kept():
    assert "<pre" in page(hostile()) and ">\n\nfirst line empty</pre>" in page(hostile())
