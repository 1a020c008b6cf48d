"""The run's training prompts as texts, which is what TRL takes, with what a verifier needs beside them.

One JSON line a question in prompts.jsonl: `prompt` is the text, the other keys are those of poc.records.Example. A text
is taken only where the tokenizer, called as TRL calls it, reads it back as the very tokens that the run asked with.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import NamedTuple

from poc import durable, pilot, rewards
from poc.config import RunConfig
from poc.motivation import motivation
from poc.records import Example, InputError


class Question(NamedTuple):
    """`prompt`: the whole prompt as text."""

    prompt: str
    example: Example


class _Asked(NamedTuple):
    """What poc.pilot.prompt_encoder knows of a policy."""

    source: str
    tokenizer: object


def render(config: RunConfig, examples: Sequence[Example], tokenizer) -> list[Question]:
    """Raises InputError for a prompt that is no text to this tokenizer."""
    if config.motivation.condition != "none" and config.label_fraction is not None:
        raise InputError("motivation with label_fraction cannot be graduated: each prompt is told other rules")
    told = motivation(rewards.rules_of(config), config.motivation.condition)
    encode, _ = pilot.prompt_encoder(pilot.Job(Path(), "", None, config), _Asked(config.model, tokenizer), told)
    return [Question(_text(example, encode(example), tokenizer), example) for example in examples]


def write(path: Path, questions: Sequence[Question]) -> None:
    lines = [json.dumps({"prompt": q.prompt, **asdict(q.example)}, ensure_ascii=False) for q in questions]
    durable.write(path, "".join(f"{line}\n" for line in lines).encode())


def read(path: Path) -> list[Question]:
    """What `write` wrote. Raises InputError naming the line."""
    questions = []
    with path.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                questions.append(_question(json.loads(line)))
            except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
                raise InputError(f"{path} line {number}: cannot be read ({error!r}): graduate the run again") from None
    return questions


def _question(row: dict) -> Question:
    asked = row["question"]
    question = asked if isinstance(asked, str) else tuple(dict(message) for message in asked)
    columns = {key: value for key, value in row.items() if key != "prompt"}
    return Question(row["prompt"], Example(**columns | {"question": question}))


def _text(example: Example, ids: list[int], tokenizer) -> str:
    """The text of these tokens. TRL lets the tokenizer add what it adds to every text, such as a begin token."""
    body = ids[1:] if ids[:1] == [tokenizer.bos_token_id] else ids
    for part in (body, ids):
        text = tokenizer.decode(part, skip_special_tokens=False, clean_up_tokenization_spaces=False)
        if list(tokenizer(text=text)["input_ids"]) == ids:
            return text
    raise InputError(
        f"{example.id}: no text is read back by this tokenizer as the tokens of its prompt, and TRL takes texts only: "
        "leave the question out (data.drop), or go on with the kit"
    )
