"""`poc review RUN`: the review of one run folder, from the first look to the result.

    review.jsonl    the verdicts as they are given (poc.review_log)
    review.json     the result, once every item is answered or a form was read back (poc.review.result)

An interrupted review goes on where it stood: the sample is drawn again, the same, and its hash compared. The result is
bound to sample and adapter by one event in the run's audit log (poc.audit.human_verdict). Only a run that has ended and
is what its audit log says can be reviewed. One review a run: --read takes back what was said, with a new event.
"""

import json
import os
import shlex
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import NamedTuple

from poc import audit_verify as chain
from poc import durable, review_form, review_log, runfolder
from poc.audit import FILE, Audit, file_sha256, human_verdict, sample_sha256
from poc.audit_check import verify_run
from poc.records import InputError
from poc.report.read import Evaluation, read
from poc.review import Item, Said, draw, result, sample, sentence
from poc.review_ask import ask
from poc.text import clip, visible

RESULT = "review.json"
ADAPTER = "adapter_model.safetensors"
MAX_NAME = 200  # characters of a reviewer's name
ENRICHED = "The sample takes disagreements first: its shares say little about the whole hold-out."


class Ended(NamedTuple):
    """What a run began and ended with; `step`: of the weights that it left behind."""

    folder: Path
    step: int
    start: Evaluation
    end: Evaluation

    @property
    def adapter(self) -> Path:
        return self.folder / "checkpoints" / f"step-{self.step:06d}" / ADAPTER


class Review(NamedTuple):
    """A review that was begun: its sample and what was said of it so far."""

    ended: Ended
    options: dict  # as review_log.DEFAULTS
    items: list[Item]
    said: dict[str, Said]
    reviewers: list[str]

    @property
    def sample(self) -> dict:
        return sample(self.items, self.options["seed"], self.ended.step, self.options["show_gold"])


def review(
    folder: Path, options: dict, *, reviewer: str = "", csv: Path | None = None, html: Path | None = None,
    form: Path | None = None,
) -> None:  # fmt: skip
    """Ask in the terminal, or write forms, or read one (`form`) back; print and write the result where it is complete.

    `options`: those of review_log.DEFAULTS that the user chose, None for the others. Raises InputError, having written
    nothing, for a folder that is no ended run, other options than those it was begun with, or a form that is wrong.
    """
    targets = {"--csv": csv, "--html": html}
    _check_targets(targets, form)
    ended = _ended(folder)
    held = runfolder.lock(folder)
    try:
        if form and not (folder / review_log.FILE).is_file():
            raise InputError(f"--read {form}: no review of {folder} was begun: write the form with --csv or --html")
        begun = _begin(ended, options)
        if form:
            return _take_back(begun, form, reviewer)
        if csv or html:
            return _write_forms(begun, csv, html, reviewer)
        if _ask(begun, reviewer):
            _finish(begun)
    finally:
        held.release()


def _check_targets(targets: dict[str, Path | None], form: Path | None) -> None:
    given = {name: path for name, path in targets.items() if path is not None}
    if given and form is not None:
        raise InputError(f"--read {form}: reads a form back, {' and '.join(given)} writes one: give one of the two")
    for name, path in given.items():
        if path.exists():
            raise InputError(f"{name} {path}: exists already; name another file")
        if not os.access(path.parent, os.W_OK):
            raise InputError(f"{name} {path}: {path.parent} is not a folder that you may write to; name another")


def _ended(folder: Path) -> Ended:
    """The two evaluations to compare. Raises InputError for whatever is not a whole run that has ended."""
    if (folder / "arms").is_dir():
        arms = sorted(visible(str(path)) for path in (folder / "arms").iterdir() if path.is_dir())
        raise InputError(
            f"{folder}: is a pilot's folder: name one of its runs: {', '.join(arms) or 'there is none yet'}"
        )
    (run,) = read(folder)
    if run.status not in ("done", "stopped"):
        raise InputError(f"{folder}: has not ended ({run.status}): go on with it first: poc resume {_quoted(folder)}")
    _check_as_logged(folder)
    kept, steps = run.outcome.get("kept"), run.outcome.get("steps")
    step = steps if kept is None else kept
    start, end = _at(run.evaluations, 0), _at(run.evaluations, steps) if kept is None else run.kept
    if start is None or end is None:
        missing = "step 0" if start is None else f"step {step}"
        raise InputError(f"{folder}: its evaluation of {missing} is missing or cannot be read: put it back")
    return Ended(folder, step, start, end)


def _at(evaluations: Sequence[Evaluation], step: int) -> Evaluation | None:
    return next((found for found in evaluations if found.step == step), None)


def _check_as_logged(folder: Path) -> None:
    """InputError unless the folder is what its audit log says, an older result apart: that is written again."""
    found = verify_run(folder)
    wrong = [line for line in found.lines if ": BROKEN: " in line or ": PROBLEM: " in line]
    wrong = [line for line in wrong if f": PROBLEM: {RESULT}: " not in line]
    if wrong:
        raise InputError(
            f"{wrong[0]}: a review needs the run as it was logged; all of it: poc verify {_quoted(folder)}"
        )


def _begin(ended: Ended, options: dict) -> Review:
    """A new review, or the one that was begun with the same options."""
    path = ended.folder / review_log.FILE
    lines = review_log.read(path)
    chosen = review_log.settled(path, lines, options)
    items = draw(ended.start, ended.end, chosen["count"], chosen["seed"])
    if not items:
        raise InputError(f"{ended.folder}: its first and last evaluation have no question in common: nothing to review")
    begun = Review(ended, chosen, items, *review_log.verdicts(path, lines, {item.key for item in items}))
    review_log.begin(path, lines, chosen, sample_sha256(begun.sample))
    return begun


def _record(begun: Review, reviewer: str, key: str, said: Said) -> None:
    """Keep one verdict: on the disk first."""
    reviewer = clip(reviewer.strip(), MAX_NAME)
    review_log.append(begun.ended.folder / review_log.FILE, key, said, reviewer)
    begun.said[key] = said
    if reviewer and reviewer not in begun.reviewers:
        begun.reviewers.append(reviewer)


def _ask(begun: Review, reviewer: str) -> bool:
    """Whether every item has an answer and the reviewer is done; what was said is kept either way."""
    wanted, there, folder = begun.options["count"], len(begun.items), begun.ended.folder
    if len(begun.said) == there:
        return True
    few = f" (all that there are, of the {wanted} asked for)" if there < wanted else ""
    print(f"{there} completions{few} from before and after training, mixed: is what each finally answers right?")
    done = False
    try:
        done = ask(
            begun.items, begun.said, lambda key, said: _record(begun, reviewer, key, said),
            show_gold=begun.options["show_gold"],
        )  # fmt: skip
    finally:  # also where Ctrl-C ends it
        if not done:
            print(f"\n{len(begun.said)} of {there} answered and kept; go on with: poc review {_quoted(folder)}")
    return done


def _write_forms(begun: Review, csv: Path | None, html: Path | None, reviewer: str) -> None:
    gold, folder = begun.options["show_gold"], begun.ended.folder
    if csv:
        durable.write(csv, review_form.csv_form(begun.items, gold))
        print(
            f"{csv}: fill in the column verdict (y, n or s), then: poc review {_quoted(folder)} --read {_quoted(csv)}"
        )
    if html:
        mark, name = sample_sha256(begun.sample), folder.resolve().name
        durable.write(html, review_form.html_form(begun.items, gold, name=name, reviewer=reviewer, sample=mark))
        print(
            f"{html}: open it in a browser, save the verdicts, then: poc review {_quoted(folder)} --read verdicts.json"
        )


def _take_back(begun: Review, form: Path, reviewer: str) -> None:
    """Read a filled-in form, all or nothing; what it leaves empty stays as it was."""
    named, said = review_form.read_back(form, begun.items, sample_sha256(begun.sample))
    for key, one in said.items():
        if begun.said.get(key) != one:
            _record(begun, reviewer or named, key, one)
    _finish(begun)


def _finish(begun: Review) -> None:
    """Write the result and bind it; again, where nothing new was said, to the same bytes and without a second event."""
    path, mark = begun.ended.folder / RESULT, sample_sha256(begun.sample)
    if all(one.right is None for one in begun.said.values()):
        return print(
            "every completion was skipped: there is nothing to compare; take it back with a form: --csv, --read"
        )
    facts = {
        "step": begun.ended.step, "seed": begun.options["seed"], "sample_sha256": mark,
        "adapter_sha256": file_sha256(begun.ended.adapter), "reviewer": ", ".join(begun.reviewers),
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"), "show_gold": begun.options["show_gold"],
    }  # fmt: skip
    found = result(begun.items, begun.said, facts)
    if not _is_same(path, found):
        durable.write(path, json.dumps(found, indent=1, allow_nan=False).encode("ascii") + b"\n")
    _bind(begun, path, found)
    print(f"{sentence(found)}\n{ENRICHED}\n{path}: the result, bound in {FILE} to the sample and to the adapter")


def _is_same(path: Path, found: dict) -> bool:
    """But for the date."""
    try:
        before = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return False
    return isinstance(before, dict) and before | {"date": ""} == json.loads(json.dumps(found)) | {"date": ""}


def _bind(begun: Review, path: Path, found: dict) -> None:
    bound: dict[str, str] = {}  # what the log's last word on each file is
    chain.verify(
        begun.ended.folder / FILE, seen=lambda e: bound.update(e["data"]["report"] if e["event"] == "human" else {})
    )
    if bound.get(RESULT) != file_sha256(path):
        human_verdict(
            Audit(begun.ended.folder / FILE), reviewer=found["reviewer"], verdict=sentence(found), sample=begun.sample,
            report=path, adapter=begun.ended.adapter,
        )  # fmt: skip


def _quoted(path: Path) -> str:
    return visible(shlex.quote(str(path)))
