"""What people found, as the page shows it: agreement, kappa, who is right how often, and where they differ."""

from markupsafe import Markup

from poc.report import words
from poc.report.language import Language, logged
from poc.report.read import Run
from poc.report.review import Review
from poc.report.samples import status_word
from poc.statistics import Interval
from poc.text import clip


def reviewed(run: Run, say: Language) -> dict | None:
    """The review of one run; None where nobody reviewed it (a damaged file is among the run's notes)."""
    found = run.review
    if found is None:
        return None
    return {
        "run": clip(run.name, 80),
        "told": _told(found, say),
        "rows": [[say(f"review.{model}"), words.percent(s.human), words.percent(s.verifier), str(s.n)]
                 for model, s in found.by_model.items()],
        "hashes": _hashes(found, say),
        "differs": bool(found.adapter_sha256) and found.found_sha256 not in (None, found.adapter_sha256),
        "disagreements": [_disagreement(d, say) for d in found.disagreements],
        "left_out": found.left_out,
    }  # fmt: skip


def _told(found: Review, say: Language) -> Markup:
    by = {"reviewer": logged(found.reviewer or "–", 60), "date": logged(found.date or "–", 40)}
    kappa = _kappa(found.kappa, say)
    return say.markup("review.told", n=found.n, agreement=words.percent(found.agreement), kappa=kappa, **by)


def _kappa(found: Interval | None, say: Language) -> str:
    if found is None or found.value is None:
        return "–"
    if found.low is None or found.high is None:
        return words.number(found.value)
    span = say("span", low=words.number(found.low), high=words.number(found.high))
    return f"{words.number(found.value)} ({span})"


def _hashes(found: Review, say: Language) -> list[tuple[str, str]]:
    return [
        (say("review.sample hash"), clip(found.sample_sha256 or "–", 100)),
        (say("review.adapter hash"), clip(found.adapter_sha256 or "–", 100)),
        (say("review.found hash"), found.found_sha256 or "–"),
    ]


def _disagreement(found, say: Language) -> dict:
    known = {"start": say("review.start"), "end": say("review.end")}
    return {
        "id": clip(found.id, 80),
        "model": known.get(found.model, clip(found.model, 20)),
        "verifier": status_word(found.verifier, say),
        "human": status_word(found.human, say),
        "text": clip(found.text, 700),
        "note": clip(found.note, 400),
    }
