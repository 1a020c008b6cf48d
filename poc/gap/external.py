"""Answers from outside for `poc improve`: a file of them, or another model's, to questions that are trained on.

A file is JSON lines with the question's text and the answer as the model is to write it: {"prompt", "completion"}. A
model is loaded beside the policy, asked greedily in its own prompt format, and let go; its answers are taken as they
are, right or wrong, as long as they ended: nobody has labels for them. Not here: when they are spent (poc.gap.cross).
"""

import gc
import json
from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random

from poc import pilot, sources, tasks
from poc.config import External, RunConfig
from poc.models import Policy, load_policy
from poc.pilot import Job
from poc.records import Episode, Example, Group, InputError
from poc.rollout import sample
from poc.text import clip, visible


def check(config: RunConfig) -> None:
    """What can be wrong with a configuration of `poc improve` before weights are loaded. Raises InputError."""
    external = config.improve.external
    if config.train.rollout_reuse * config.train.inner_epochs > 1:
        raise InputError("train.rollout_reuse and train.inner_epochs: a round draws its own answers: leave both at 1")
    if config.train.nonfinite == "skip":
        raise InputError(
            "train.nonfinite = 'skip': a round is several optimizer steps and cannot be left out: set stop"
        )
    if external is None:
        return
    if external.count > config.data.train:
        raise InputError(
            f"improve.external.count = {external.count}: there are {config.data.train} training questions: lower it"
        )
    if not external.answers.endswith(".jsonl"):
        with _named():
            return sources.check_source(external.answers)
    if (rows := len(_rows(Path(external.answers)))) < external.count:
        raise InputError(
            f"improve.external: {external.answers} has {rows} answers, count is {external.count}: lower it, or add some"
        )


@contextmanager
def _named():
    """Errors about a model are told under its key here."""
    try:
        yield
    except InputError as error:
        raise InputError(f"improve.external.answers: {str(error).removeprefix('model: ')}") from None


def answers(
    external: External, policy: Policy, examples: Sequence[Example], encode, config: RunConfig
) -> list[Group]:  # fmt: skip
    """`external.count` training questions, each with the one answer that was given from outside, always the same ones.

    Raises InputError when fewer questions have an answer that fits.
    """
    order = Random(config.train.seed).sample(list(examples), len(examples))
    texts = _from_file(external) if external.answers.endswith(".jsonl") else _from_model(external, order, config)
    found = []
    for example in order:
        text = texts.get(example.text.strip())
        episode = None if text is None else _episode(text, policy, config.train.max_new_tokens)
        if episode:
            found.append(Group(example, tuple(encode(example)), (episode,)))
    if not found:
        raise InputError(
            f"improve.external: {external.answers} answers no training question: its prompts must be their texts"
        )
    if len(found) < external.count:
        raise InputError(
            f"improve.external: {len(found)} of the training questions have an answer of at most "
            f"{config.train.max_new_tokens} tokens in {external.answers}, count is {external.count}: lower it"
        )
    return found[: external.count]


def _from_file(external: External) -> dict[str, str]:
    return {row["prompt"].strip(): row["completion"] for row in _rows(Path(external.answers))}


def _rows(path: Path) -> list[dict]:
    try:
        lines = path.read_text("utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"improve.external.answers: {path} cannot be read: {error}") from None
    return [_row(path, number, line) for number, line in enumerate(lines, 1) if line.strip()]


def _row(path: Path, number: int, line: str) -> dict:
    try:
        row = json.loads(line)
        if isinstance(row["prompt"], str) and isinstance(row["completion"], str) and row["completion"].strip():
            return row
    except (ValueError, KeyError, TypeError, RecursionError):
        pass
    raise InputError(
        f"{path} line {number}: {clip(visible(line), 60)}: a row is {{'prompt': text, 'completion': text}}, "
        "neither empty"
    )


def _from_model(external: External, order: Sequence[Example], config: RunConfig) -> dict[str, str]:
    """Twice as many questions as are wanted: some answers do not end, and are left out."""
    asked = order[: 2 * external.count]
    with _named():
        other = load_policy(external.answers, quantization=config.quantization, lora_rank=1, lora_alpha=1.0)
    own = config.model_copy(update={"model": external.answers, "prompt": config.prompt.model_copy(
        update={"format": "auto", "instruction": None})})  # fmt: skip
    encode, _ = pilot.prompt_encoder(Job(Path(), "external", None, own), other)
    drawn = sample(
        other, [encode(example) for example in asked], 1, max_new_tokens=config.train.max_new_tokens, temperature=0.0,
        seed=0, max_rows=config.train.sample_rows,
    )  # fmt: skip
    texts = {e.text.strip(): one.text for e, (one,) in zip(asked, drawn, strict=True) if one.finished and one.text}
    del other
    gc.collect()
    return texts


def _episode(text: str, policy: Policy, most: int) -> Episode | None:
    """The answer as tokens with an end; None where it is too long. Its log-probabilities are not known: NaN."""
    ids = policy.tokenizer.encode(text, add_special_tokens=False)
    eos = policy.tokenizer.eos_token_id
    ids = [*ids, eos if eos in policy.stop_ids else min(policy.stop_ids)]
    if len(ids) > most:
        return None
    unknown = (float("nan"),) * len(ids)
    return Episode(tuple(ids), text, True, unknown, unknown, unknown)


def fingerprint(groups: Sequence[Group]) -> str:
    """Of questions and answers, for the record."""
    return tasks.fingerprint([Example(g.example.id, g.example.text, g.episodes[0].text, "own") for g in groups])
