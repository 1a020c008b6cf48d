"""The report: a pure function of run folders, one offline HTML file that a decision maker can read, or a table.

It imports no other stage and no stage calls it; the same folders give the same bytes. It needs no script, font or
address; every printed value is made visible (poc.text) and escaped by Jinja2, and a content policy forbids the rest.
"""

import os
from collections.abc import Sequence
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from poc.records import InputError
from poc.report.arms import Judged, collect
from poc.report.language import load
from poc.report.log_table import markdown
from poc.report.page import context
from poc.report.read import read
from poc.text import visible

MAX_BYTES = 3_000_000
DETAILED_ARMS = (24, 8, 0)  # tried in this order until the file is small enough


def write(folders: Sequence[Path], out: Path, language: str = "en") -> Path:
    """Writes the report on any mix of run folders and pilot folders to the file `out` and returns it.

    `language`: en or ja. Raises InputError when a folder is neither, when none has a run, when `out` is a folder, or
    for another language.
    """
    out, say = Path(out), load(language)
    if out.is_dir():
        raise InputError(f"{out}: is a folder; name the HTML file to write")
    judged = _judged(folders)
    pages = (_render(context(judged, detailed, say)) for detailed in DETAILED_ARMS)
    page = next((p for p in pages if len(p) <= MAX_BYTES), None)
    if page is None:
        raise InputError(f"a report on {len(judged)} arms is larger than {MAX_BYTES} bytes: report on fewer folders")
    out.parent.mkdir(parents=True, exist_ok=True)
    partial = out.with_name(f".{out.name}.partial")
    partial.write_bytes(page)
    os.replace(partial, out)
    return out


def told(path: Path, language: str = "en") -> str:
    """Where the page is, as one line for the terminal."""
    return load(language)("written", path=visible(str(path)))


def table(folders: Sequence[Path]) -> str:
    """The same arms as one Markdown table with its origin, for a log. Writes nothing. Raises InputError as `write`."""
    return markdown(_judged(folders))


def _judged(folders: Sequence[Path]) -> list[Judged]:
    found = {(run.source, run.name): run for folder in folders for run in read(Path(folder))}  # a run counts once
    if not found:
        raise InputError(f"no run in {', '.join(map(str, folders)) or 'an empty list of folders'}: nothing to report")
    return collect(list(found.values()))


def _render(values: dict) -> bytes:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("page.html.j2").render(values).encode("utf-8")


def _shown(value):
    """Every printed value passes here: text is made visible, charts are already markup."""
    return value if isinstance(value, Markup) else visible(str(value))
