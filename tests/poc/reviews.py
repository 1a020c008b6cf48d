"""Evaluations, samples and whole run folders for the tests of a review."""

import json
import shutil
from pathlib import Path

from poc.audit import Audit, file_sha256
from poc.report.read import Completion, Evaluation, Prompt
from poc.review import Item, Said, draw
from tests.poc.fake_runs import write_json


def completion(text: str, right: bool | None = True, anyhow: bool | None = None) -> Completion:
    """`right` None: no label. `anyhow`: the lenient reading, as the strict one by default."""
    if right is None:
        return Completion(text, None, None, None)
    return Completion(text, "correct" if right else "wrong", True, right if anyhow is None else anyhow)


def prompt(name: str, *drawn: Completion, gold: str | None = "7", question: str | None = None) -> Prompt:
    """The first of `drawn` is the greedy one."""
    return Prompt(name, question or f"question {name}", gold, drawn[0], tuple(drawn[1:]))


def evaluation(step: int, *prompts: Prompt) -> Evaluation:
    return Evaluation(step, 1.0, 2, {}, {f"{p.id}\n{p.question}": p for p in prompts})


def pair(questions: int = 20) -> tuple[Evaluation, Evaluation]:
    """Start and end: every text names its model, every third question has one wrong sample at the start."""
    start = [
        prompt(f"q{k}", completion(f"start {k} greedy"), completion(f"start {k} sampled", right=k % 3 > 0))
        for k in range(questions)
    ]
    end = [prompt(f"q{k}", completion(f"end {k} greedy"), completion(f"end {k} sampled")) for k in range(questions)]
    return evaluation(0, *start), evaluation(60, *end)


def drawn(count: int = 6, seed: int = 0) -> list[Item]:
    return draw(*pair(), count, seed)


def items(*verifier: bool | None, model: str = "end") -> list[Item]:
    """One a question, with these words of the verifier."""
    return [Item(f"c{i:02}", f"q{i}", f"{i}?", "7", f"text {i}", model, word) for i, word in enumerate(verifier)]


def said(found: list[Item], *right: bool | None) -> dict[str, Said]:
    return {item.key: Said(word) for item, word in zip(found, right, strict=False)}


def row(name: str, *texts: tuple[str, bool | None], question: str | None = None) -> dict:
    """A question as an evaluation's file has it; the first text is the greedy one."""
    found = [
        {"text": text, "status": None if right is None else "correct" if right else "wrong", "formatted": right,
         "correct_anyhow": right, "finished": True, "length": 3, "mean_logp": -0.1, "mean_entropy": 0.1}
        for text, right in texts
    ]  # fmt: skip
    gold = None if texts[0][1] is None else "7"
    return {"id": name, "question": question or f"question {name}", "gold": gold, "greedy": found[0],
            "sampled": found[1:]}  # fmt: skip


def ended(run: Path, folder: Path, start: list[dict], end: list[dict], kept: int | None = None) -> Path:
    """A copy of a real run whose first and last evaluation are these, and are logged as such."""
    shutil.copytree(run, folder)
    outcome = json.loads((folder / "outcome.json").read_text())
    last = f"kept/step-{kept:06d}" if kept is not None else f"step-{outcome['steps']:06d}"
    log = Audit(folder / "audit.jsonl")
    for name, rows, step in (("step-000000", start, 0), (last, end, outcome["steps"] if kept is None else kept)):
        path = folder / "evaluations" / f"{name}.json"
        content = {"step": step, "temperature": 1.0, "samples": 2, "seconds": 1.0, "summary": {}, "prompts": rows}
        write_json(path, content)
        log.append("evaluation", {"step": step, "path": f"evaluations/{name}.json", "sha256": file_sha256(path)})
    told = {key: outcome[key] for key in ("status", "reason", "steps", "guard")} | {"kept": kept}
    log.append("end", told)
    write_json(folder / "outcome.json", outcome | {"kept": kept})
    return folder
