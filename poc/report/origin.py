"""Where the numbers come from: what it takes to get them again, name by name over all runs."""

import difflib
from collections.abc import Sequence

from poc.report import words
from poc.report.arms import Arm
from poc.report.language import Language
from poc.report.read import Run
from poc.report.words import unique
from poc.text import clip

MOST = 40  # values of one name
MOST_TEXT = 20_000  # characters of a configuration


def provenance(runs: Sequence[Run], say: Language) -> list[tuple[str, list[str]]]:
    """Name and distinct values over all runs."""
    environments = [r.environment for r in runs if r.environment]

    def parts(name: str) -> list[dict]:
        return [e[name] for e in environments if isinstance(e.get(name), dict)]

    models, data = parts("model"), parts("data")
    found = {
        "kit": (words.kit(e, say) for e in environments),
        "command": (str(e.get("command")) for e in environments),
        "started": sorted(str(e.get("started")) for e in environments)[:1],
        "seeds": (str(r.seed) for r in runs),
        "models": (f"{m.get('source')}, sha256 {m.get('fingerprint')}" for m in models),
        "prompts": (_prompt(m, say) for m in models),
        "data": (f"{split}: sha256 {d.get(split)}" for d in data for split in ("train", "holdout", "canary")),
        "questions": (_pairs(d["counts"]) for d in data if isinstance(d.get("counts"), dict)),
        "hardware": (words.hardware(r, say) for r in runs if r.environment),
        "python": (str(e.get("python")) for e in environments),
        "packages": map(_pairs, parts("packages")),
        "audit": (f"{r.name}: {head}" for r in runs if (head := r.outcome.get("audit_head"))),
        "memory": (
            f"{r.name}: {m:.0f} MiB" for r in runs if isinstance(m := r.outcome.get("peak_memory_mib"), int | float)
        ),
    }
    return [(say(f"origin.{name}"), [clip(v, 1000) for v in unique(values)[:MOST]]) for name, values in found.items()]


def _prompt(model: dict, say: Language) -> str:
    """How a model was asked; the instruction is the file's own text."""
    return f"{model.get('source')}: {model.get('prompt_format')}. {model.get('instruction') or say('origin.no prompt')}"


def _pairs(mapping: dict) -> str:
    return ", ".join(f"{k} {v}" for k, v in mapping.items())


def configurations(arms: Sequence[Arm], say: Language) -> list[dict]:
    """Of the first arm in full, of the others the lines that differ from it, with two lines around each."""
    texts = [(clip(arm.label, 80), clip(arm.first.config_text, MOST_TEXT)) for arm in arms if arm.first.config_text]
    if not texts:
        return []
    (first, whole), others = texts[0], texts[1:]
    found = [{"title": say("again.config", arm=first), "text": whole}]
    return found + [{"title": say("again.config like", arm=name, first=first), "text": _differences(whole, text)}
                    for name, text in others]  # fmt: skip


def _differences(first: str, text: str) -> str:
    """Lines with - only in `first`, with + only in `text`."""
    lines = list(difflib.unified_diff(first.splitlines(), text.splitlines(), n=2, lineterm=""))[2:]
    return "\n".join("…" if line.startswith("@@") else line for line in lines) or "="
