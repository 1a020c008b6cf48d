"""Puts a generated table in kernels/README.md, between two comments that name it. Knows nothing of what is in it."""

from pathlib import Path

from benchmarks.timing import ROOT

README = ROOT / "kernels" / "README.md"


def put(name: str, text: str, path: Path = README) -> None:
    """Replaces what stands between `<!-- name: begin -->` and `<!-- name: end -->`; ValueError where they are not."""
    begin, end = f"<!-- {name}: begin -->", f"<!-- {name}: end -->"
    before, found, rest = path.read_text().partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise ValueError(f"{path.name} has no {begin} followed by {end}")
    path.write_text(f"{before}{begin}\n{text.strip()}\n{end}{after}")


def markdown(columns: list[str], rows: list[list[str]]) -> str:
    """A table; the first column to the left, numbers to the right."""
    rule = ["---", *("---:" for _ in columns[1:])]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (columns, rule, *rows))
