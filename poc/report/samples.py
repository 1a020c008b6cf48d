"""Which of the model's texts the report shows: chosen by rule and hash, never by hand; clipped, not cleaned."""

import hashlib

from poc.report.arms import Arm, correct
from poc.report.read import Completion, Prompt, Run
from poc.text import clip


def changed_answers(arm: Arm) -> list[dict]:
    """Greedy answers before and after, of the first seed: wrong to right, right to wrong, and one drawn by hash."""
    if not arm.measured:
        return []
    first, last = arm.measured[0].evaluations[0].prompts, arm.measured[0].final.prompts
    keys = sorted((k for k in first if k in last and first[k].greedy and last[k].greedy), key=_order(arm.label))
    kinds = [(correct(first[k].greedy), correct(last[k].greedy), k) for k in keys]
    picks = [("Wrong before, right after", next((k for b, a, k in kinds if (b, a) == (0, 1)), None))]
    picks += [("Right before, wrong after", next((k for b, a, k in kinds if (b, a) == (1, 0)), None))]
    taken = {k for _, k in picks}
    picks += [("One at random", next((k for k in keys if k not in taken), None))]
    return [_pair(title, first[k], last[k]) for title, k in picks if k is not None]


def _order(salt: str):
    return lambda key: hashlib.sha256(f"{salt}\n{key}".encode("utf-8", "surrogatepass")).hexdigest()


def _pair(title: str, before: Prompt, after: Prompt) -> dict:
    answers = [{"when": when, **_answer(p.greedy)} for when, p in (("before", before), ("after", after))]
    return {
        "title": title,
        "question": clip(before.question, 500),
        "gold": clip(before.gold or "–", 80),
        "answers": answers,
    }


def _answer(completion: Completion) -> dict:
    return {"status": completion.status or "unlabelled", "text": clip(completion.text, 700)}


def paid(run: Run) -> dict | None:
    """Best, median and worst completion of one training group at the last step that kept some."""
    for record in reversed(run.samples):
        kept = record.get("completions")
        found = [c for c in kept if isinstance(c, dict)] if isinstance(kept, list) else []
        if found:
            rows = [
                {"reward": clip(str(c.get("reward")), 12), "status": clip(str(c.get("status") or "unlabelled"), 20),
                 "text": clip(str(c.get("text")), 400)} for c in found[:3]
            ]  # fmt: skip
            return {"step": str(record.get("step")), "question": clip(str(record.get("question")), 400), "rows": rows}
    return None
