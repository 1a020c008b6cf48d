"""Both languages of the report: the same keys and placeholders, every key used and there, no page half translated."""

import importlib.util
import json
import re
import string
from pathlib import Path

import pytest
from typer.testing import CliRunner

from poc.cli import app
from poc.config import Guard
from poc.records import InputError
from poc.report import told, write
from poc.report.language import LANGUAGES, load

_spec = importlib.util.spec_from_file_location("fake_runs", Path(__file__).with_name("fake_runs.py"))
fake_runs = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fake_runs)
HOSTILE, Page, harmless = fake_runs.HOSTILE, fake_runs.Page, fake_runs.harmless

EN, JA = load("en"), load("ja")
SOURCES = Path(__file__).parents[2] / "poc" / "report"
# Keys that are put together: "reason." and the reason. What follows is checked where the words come from.
PUT_TOGETHER = (
    "stage.", "word.", "card.", "reason.", "next.", "risk.", "badge.", "lead.", "remark.", "state.", "note.", "role.",
    "headline.", "panel.", "sample.", "status.", "origin.", "action.", "view.motivated", "review.", "unmeasured.",
    "phrase.", "time.", "cost.",
)  # fmt: skip
ENGLISH = re.compile(r"(?:\b[A-Za-z][A-Za-z'’-]*\b[ ,.;:]+){3,}\b[A-Za-z]{2,}\b")


def placeholders(text: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(text) if name is not None}


def test_same_keys_and_placeholders():
    assert list(EN.text) == list(JA.text)
    different = {k for k in EN.text if placeholders(EN.text[k]) != placeholders(JA.text[k])}
    assert different == set()
    for part in ("rewards", "rules", "glossary"):
        assert list(getattr(EN, part)) == list(getattr(JA, part))
    assert set(EN.rules) == set(Guard.model_fields) - {"action"}


def test_markup_is_the_same_in_both():
    tags = {
        k: (sorted(re.findall(r"<[^>]+>", EN.text[k])), sorted(re.findall(r"<[^>]+>", JA.text[k]))) for k in EN.text
    }
    assert {k for k, (one, other) in tags.items() if one != other} == set()
    assert {tag for one, _ in tags.values() for tag in one} == {"<code>", "</code>"}


def test_no_text_is_left_in_the_other_language():
    for key, text in JA.text.items():
        plain = re.sub(r"<code>.*?</code>|\{[^}]*\}", "", text)
        assert not ENGLISH.search(plain), key
        assert not re.search(r"[\u3040-\u30ff\u4e00-\u9fff]", EN.text[key]), key
    japanese = [*JA.rewards.values(), *JA.rules.values(), *(part for entry in JA.glossary.values() for part in entry)]
    assert all(re.search(r"[\u3040-\u30ff\u4e00-\u9fff]", text) for text in japanese if text not in ("ECE", "AUROC"))


def asked_for() -> set[str]:
    """Keys that stand in the code and in the template."""
    found = set()
    for path in [*SOURCES.glob("*.py"), SOURCES / "page.html.j2"]:
        text = path.read_text("utf-8")
        found |= set(re.findall(r"""say(?:\.markup)?\(\s*"([a-z][^"{}]*)\"""", text))
        found |= {f"{noun}.many" for noun in re.findall(r"""say\.count\(\s*"([^"{}]+)\"""", text)}
        found |= {k for listed in re.findall(r"heads\(\[([^\]]+)\]\)", text) for k in re.findall(r'"([^"]+)"', listed)}
    return found


def test_every_key_that_is_asked_for_is_there_and_every_key_is_asked_for():
    asked = asked_for()
    assert asked - set(EN.text) == set()
    unused = {k for k in EN.text if k not in asked and not k.startswith(PUT_TOGETHER) and not k.endswith(".one")}
    unused = {k for k in unused if not quoted(k)}
    assert unused == set()


def quoted(key: str) -> bool:
    return any(f'"{key}"' in path.read_text("utf-8") for path in [*SOURCES.glob("*.py"), SOURCES / "page.html.j2"])


def everything(folder: Path) -> list[Path]:
    """Folders that make every section appear: arms that fall, guard, labels, mixes, domains, review, damage."""
    some = ("base-self_certainty", "base-verifiable", "base-random", "instruct-verifiable")
    pilot = fake_runs.pilot(folder / "pilot", 24, arms=some)
    fallen = pilot / "arms" / "base-self_certainty-seed0"
    outcome = json.loads((fallen / "outcome.json").read_text())
    kept = json.loads((fallen / "evaluations" / "step-000010.json").read_text())
    fake_runs.write_json(fallen / "evaluations" / "kept" / "step-000010.json", kept)
    guard = [{"rule": rule, "action": action, "step": step} for rule, action, step in
             (("past_peak", "warn", 20), ("canary_drop", "rollback", 60))]  # fmt: skip
    told = {"status": "stopped", "kept": 10, "guard": guard, "reason": "canary_drop: it is forgetting the task"}
    fake_runs.write_json(fallen / "outcome.json", outcome | told)
    fake_runs.add_view(fallen, "level-2", (0.5, 0.2))
    fake_runs.add_view(fallen, "motivated", (0.4, 0.5))
    torn = pilot / "arms" / "base-random-seed0"
    (torn / "outcome.json").unlink()
    (torn / "environment.json").unlink()
    with (torn / "steps.jsonl").open("a") as lines:
        lines.write('[1]\n{"step": 61')
    fake_runs.write_json(pilot / "arms" / "base-verifiable-seed0" / "review.json", fake_runs.review())
    (pilot / "arms" / "instruct-verifiable-seed0" / "review.json").write_text('{"n": "many"}')
    labels = fake_runs.label_pilot(folder / "labels", 12)
    mixed = fake_runs.mixed_pilot(folder / "mixed", 12, shares=(0.0, 1.0))
    return [pilot, labels, mixed, fake_runs.transfer_pilot(folder / "transfer", 12, measure=("math", "code"))]


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    return everything(tmp_path_factory.mktemp("all"))


@pytest.fixture(scope="module")
def pages(folders, tmp_path_factory):
    out = tmp_path_factory.mktemp("out")
    return {code: write(folders, out / f"{code}.html", code).read_text("utf-8") for code in LANGUAGES}


def test_the_page_says_what_language_it_is_in(pages):
    for code, page in pages.items():
        assert f'<html lang="{code}">' in page
        harmless(re.sub(r'xlink:href="data:image/png;base64,[^"]*"', "", page))  # the heat maps


def test_the_japanese_page_has_no_english_sentence(pages):
    own = Page(pages["ja"]).own_words
    found = [match[0] for text in own if (match := ENGLISH.search(" ".join(text.split())))]
    assert found == []
    drawn = [match[0] for name in Page(pages["ja"]).charts if (match := ENGLISH.search(name))]
    assert drawn == []


def test_both_pages_have_the_same_parts(pages):
    def parts(page):
        parsed = Page(page)
        headings = len(re.findall(r"<h[1-4]", page))
        return headings, len(parsed.charts), page.count("<tr"), page.count("<dt"), page.count("<li"), page.count("<pre")

    assert parts(pages["en"]) == parts(pages["ja"])


def test_headings_go_down_one_by_one(pages):
    for page in pages.values():
        levels = [int(level) for level in re.findall(r"<h([1-4])[ >]", page)]
        assert levels[0] == 1 and levels.count(1) == 1
        assert all(after - before <= 1 for before, after in zip(levels, levels[1:], strict=False))


def test_tables_have_captions_and_headers_with_scope(pages):
    for page in pages.values():
        assert page.count("<table") == page.count("<caption") > 5
        assert not re.search(r"<th(?![^>]*scope=)[ >]", page)


@pytest.mark.parametrize("hostile", HOSTILE[::3])
def test_nothing_hostile_survives_in_japanese(hostile, tmp_path):
    folder = fake_runs.pilot(tmp_path / "p", 6, arms=("base-verifiable",), text=lambda s: hostile)
    run = folder / "arms" / "base-verifiable-seed0"
    environment = json.loads((run / "environment.json").read_text())
    fake_runs.write_json(run / "environment.json", environment | {"arm": hostile, "command": hostile, "role": hostile})
    guard = [{"rule": hostile, "action": hostile, "step": 30}]
    fake_runs.write_json(run / "outcome.json", {"status": "failed", "reason": hostile, "guard": guard})
    fake_runs.write_json(run / "review.json", fake_runs.review(hostile))
    harmless(write([folder], tmp_path / "r.html", "ja").read_text("utf-8"))


def test_the_command_writes_either_language_and_names_the_two(tmp_path):
    folder = fake_runs.pilot(tmp_path / "p", 6, arms=("base-verifiable",))
    shown = CliRunner().invoke(app, ["report", str(folder), "--language", "ja"])
    assert (
        shown.exit_code == 0
        and shown.stdout.startswith("報告書：")
        and 'lang="ja"' in (folder / "report.html").read_text()
    )
    other = CliRunner().invoke(app, ["report", str(folder), "--language", "fr"])
    assert isinstance(other.exception, InputError) and "en or ja" in str(other.exception)
    table = CliRunner().invoke(app, ["report", str(folder), "--language", "ja", "--table"])
    assert isinstance(table.exception, InputError)
    assert told(Path("a\x1b[2Jb.html")) == "The report is in a\\x1b[2Jb.html"


def test_a_plural_is_a_plural():
    assert [EN.count("arm", n) for n in (0, 1, 2)] == ["0 arms", "1 arm", "2 arms"]
    assert JA.count("question", 256) == "256 問"


def test_what_a_file_says_cannot_fill_a_placeholder():
    assert EN("chart.accuracy", group="{0.__class__} {key}").endswith("{0.__class__} {key}")
    assert "&lt;b&gt;" in EN.markup("diverged", arm="<b>", before="", after="", change="")
