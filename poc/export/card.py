"""The model card: README.md of an export. Facts of a run in, Markdown out; nothing is measured here.

What a file or a user named is shown as code, in a span or a block whose marks are longer than any inside, so that
nothing of it becomes Markdown, HTML or a link; every other value is escaped as it is printed. The card's head is YAML
by PyYAML. Words, verdicts and intervals are those of the report. No path of this machine is in it.
"""

import re
from collections.abc import Callable
from pathlib import Path

import yaml
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from poc import __version__, runfolder, sources, tasks
from poc.export.parity import Parity, encoder
from poc.export.taken import Taken
from poc.prompts import render as prompt_of
from poc.report import verdicts, words
from poc.report.arms import Judged, correct, correct_anyhow
from poc.report.language import load
from poc.report.log_table import escaped
from poc.report.read import Evaluation, Values
from poc.statistics import bootstrap_interval
from poc.text import clip, visible

SAY = load("en")

PLACE = "{question}"  # where the question goes in the prompt that is shown
MOST = 20  # of a list: decisions of the guard, instructions
PAIRED: dict[str, Callable[[Evaluation], Values]] = {
    "right, sampled at temperature 1": lambda evaluation: evaluation.per_prompt(correct),
    "right, greedy": lambda evaluation: _greedy(evaluation),
    "right regardless of format": lambda evaluation: evaluation.per_prompt(correct_anyhow),
    "marked as asked": lambda evaluation: evaluation.per_prompt(lambda completion: completion.formatted),
}
UNPAIRED = {
    "length": "tokens of an answer",
    "truncated": "share cut off by the length limit",
    "entropy": "entropy, nats per token",
}


def render(taken: Taken, kind: str, parity: Parity, head: str, quantization: dict | None = None) -> str:
    """`kind`: adapter or merged; `head`: of the run's audit log, before the export is in it. `quantization`: how
    bitsandbytes held the start model that an adapter was checked with."""
    page = Environment(
        loader=FileSystemLoader(Path(__file__).parent), undefined=StrictUndefined, finalize=_shown, trim_blocks=True,
        lstrip_blocks=True, keep_trailing_newline=True, autoescape=False,  # no HTML: `finalize` escapes for Markdown
    )  # fmt: skip
    page.filters |= {"code": code, "block": block}
    facts = {"taken": taken, "kind": kind, "parity": parity, "head": head, "most": MOST, "version": __version__}
    return page.get_template("card.md.j2").render(
        facts
        | _measured(taken, parity)
        | _trained(taken)
        | _prompting(taken, _load(taken, kind, parity.dtype, quantization))
        | {"front": _front(taken, kind), "where": _where(taken, kind)}
    )


def warnings(taken: Taken, parity: Parity) -> list[str]:
    """What a reader must know first, a sentence without its full stop each, safe for a terminal."""
    run, status, word = taken.run, taken.run.status, taken.judged.verdict.word
    reason = clip(visible(" ".join(str(run.outcome.get("reason") or "no reason was given").split())), 300)
    hurts = word != "hurts" and taken.in_pilot and taken.in_pilot.verdict.word == "hurts"
    found = {
        "this run made the model worse": word == "hurts" and words.sentence(taken.judged, SAY),
        "over all its seeds this arm made the model worse": hurts and words.sentence(taken.in_pilot, SAY),
        "the guard ended the run": status == "stopped" and reason,
        "the run failed": status == "failed" and reason,
        "the run has not ended": status in ("killed", "interrupted")
        and f"these weights are its last whole checkpoint, of step {taken.step} of {taken.config.train.steps}",
        "these are the start model's weights": taken.step == 0 and "no step of training is in them",
        "not measured": not run.evaluations and f"there is no evaluation of step {taken.step}",
        "the run was measured with its start model in 4 bits, which these weights are not": parity.four_bit is not None
        and f"{parity.four_bit:.1%} of its greedy tokens are theirs",
    }
    return [f"{what}: {why}".rstrip(".") for what, why in found.items() if why]


def code(value, limit: int = 400) -> Markup:
    """A code span on one line."""
    text = clip(" ".join(visible(str(value)).split()), limit) or " "
    pad = " " if "`" in text else ""
    ticks = "`" * (1 + _longest(text))
    return Markup(f"{ticks}{pad}{text}{pad}{ticks}")


def block(text: str, language: str = "text") -> Markup:
    """A block of code, its lines as they are."""
    fence = "`" * max(3, 1 + _longest(text))
    return Markup(f"{fence}{language}\n{visible(text)}\n{fence}")


def _longest(text: str) -> int:
    """The longest run of backticks."""
    return max(map(len, re.findall("`+", text)), default=0)


def _shown(value):
    """Every printed value passes here: one line, no Markdown, no address that a reader would make a link of."""
    if isinstance(value, Markup):
        return value
    return escaped(str(value)).replace("://", "\\://").replace("www.", "www\\.")


def _front(taken: Taken, kind: str) -> Markup:
    """What the Hub reads, but for the licence."""
    paid = "verifiable-rewards" if taken.config.needs_labels else "label-free"
    return Markup(yaml.safe_dump({
        "base_model": visible(public_name(taken.config.model)),
        "library_name": "peft" if kind == "adapter" else "transformers",
        "pipeline_tag": "text-generation",
        "tags": [*(["lora"] if kind == "adapter" else []), "reinforcement-learning", paid],
    }, sort_keys=False))  # fmt: skip


def public_name(source: str) -> str:
    """The source; of a folder its own name: where it lies on this machine is nobody's business."""
    if source.startswith("mix:"):
        first, second, share = sources.parse_mix(source)
        return f"mix:{public_name(first)}+{public_name(second)}@{share:g}"
    local = None if source in sources.LABS else sources.local_folder(source)
    return local.resolve().name if local else source


def _measured(taken: Taken, parity: Parity) -> dict:
    run, judged = taken.run, taken.judged
    hardware = runfolder.environment()["hardware"]
    return {
        "verdict": SAY(f"badge.{judged.verdict.word}"),
        "sentence": words.sentence(judged, SAY) if run.evaluations else "",
        "warnings": warnings(taken, parity),
        "remarks": words.remarks(judged, SAY) if run.evaluations else [],
        "in_pilot": _in_pilot(taken.in_pilot),
        "rows": _rows(run.evaluations[0], run.final) if judged.arm.measured else [],
        "here": f"{hardware['gpu'] or 'no GPU'}, {hardware['cpu']}, threads: {hardware['threads']}",
    }


def _in_pilot(judged: Judged | None) -> dict | None:
    """What the pilot knows beyond this run: other seeds, a control."""
    if judged is None or (len(judged.arm.runs) == 1 and judged.control is None):
        return None
    return {
        "seeds": SAY.count("seed", len(judged.arm.runs)),
        "control": judged.control is not None,
        "verdict": SAY(f"badge.{judged.verdict.word}"),
        "said": " ".join([words.sentence(judged, SAY), *words.remarks(judged, SAY)]),
    }


def _rows(first: Evaluation, last: Evaluation) -> list[tuple[str, str, str, str, str]]:
    """(what, before, after, change with its interval, questions)."""
    found = [_paired(name, metric(first), metric(last)) for name, metric in PAIRED.items()]
    return [row for row in found if row] + [_unpaired(name, first, last) for name in UNPAIRED]


def _paired(name: str, before: Values, after: Values) -> tuple[str, str, str, str, str] | None:
    """None where nothing has a label."""
    change = verdicts.change([after], [before])
    if change is None:
        return None
    ends = (words.percent(bootstrap_interval(list(values.values())).value) for values in (before, after))
    return (name, *ends, words.change(change, SAY), str(change.n))


def _unpaired(name: str, first: Evaluation, last: Evaluation) -> tuple[str, str, str, str, str]:
    ends = (words.number(e.summary[name].value if name in e.summary else None) for e in (first, last))
    return (UNPAIRED[name], *ends, "–", str(len(last.prompts)))


def _greedy(evaluation: Evaluation) -> Values:
    found = {key: prompt.greedy and prompt.greedy.correct for key, prompt in evaluation.prompts.items()}
    return {key: value for key, value in found.items() if value is not None}


def _trained(taken: Taken) -> dict:
    told, guard = taken.run.environment, taken.run.outcome.get("guard")
    data, packages = _mapping(told.get("data")), _mapping(told.get("packages"))
    counts, splits = _mapping(data.get("counts")), ("train", "holdout", "canary")
    return {
        "config": taken.config, "run": taken.run, "source": public_name(taken.config.model),
        "fingerprint": taken.located.fingerprint, "revision": taken.located.revision,
        "labels": told.get("labels", "unknown"), "started": told.get("started", "unknown"),
        "data": [(split, counts.get(split, "?"), data[split]) for split in splits if split in data],
        "hardware": words.hardware(taken.run, SAY), "kit": words.kit(told, SAY),
        "versions": ", ".join(f"{name} {version}" for name, version in packages.items()),
        "guard": [d for d in guard if isinstance(d, dict)] if isinstance(guard, list) else [],
        "internal": taken.judged.arm.internal,
    }  # fmt: skip


def _prompting(taken: Taken, load: list[str]) -> dict:
    """How to ask: the prompt with PLACE for the question, and Python that loads (`load`) and asks."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(taken.located.folder, trust_remote_code=False)
    told = _instructions(taken)
    ids = prompt_of(PLACE, tokenizer, taken.config.prompt.format, next(iter(told), ""))
    text = tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)
    encode = encoder(taken.config, tokenizer)
    return {
        "prompt": text, "place": PLACE, "instructions": told,
        "python": _python(load, text, taken.config.train.max_new_tokens),
        "exact": PLACE in text and list(tokenizer(text, add_special_tokens=False)["input_ids"]) == ids,
        "longest": max(len(encode(example)) for example in taken.holdout),
    }  # fmt: skip


def _instructions(taken: Taken) -> dict[str, str]:
    """What a prompt says beside the question -> of which questions."""
    prompt, found = taken.config.prompt, {}
    if prompt.format == "bare":
        return {}
    for example in taken.holdout:
        told = tasks.instruction(example) if prompt.instruction is None else prompt.instruction
        found.setdefault(told, {})[f"{example.domain}, level {example.level}"] = None
    return {told: "; ".join(kinds) for told, kinds in found.items()}


def _python(load: list[str], prompt: str, tokens: int) -> str:
    return "\n".join([
        *load,
        "tokenizer = AutoTokenizer.from_pretrained(folder)",
        "",
        f'prompt = {ascii(prompt)}.replace({PLACE!r}, "YOUR QUESTION")',
        'inputs = tokenizer(prompt, add_special_tokens=False, return_tensors="pt").to(model.device)',
        f"answer = model.generate(**inputs, max_new_tokens={tokens})",
        'print(tokenizer.decode(answer[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True))',
    ])  # fmt: skip


def _load(taken: Taken, kind: str, dtype: str, quantization: dict | None) -> list[str]:
    """Python that loads the folder as it was checked."""
    if kind == "merged":
        return [
            "from transformers import AutoModelForCausalLM, AutoTokenizer",
            "",
            'folder = "PATH/TO/THIS/FOLDER"',
            'model = AutoModelForCausalLM.from_pretrained(folder, dtype="auto").eval()',
        ]
    source, revision = taken.config.model, taken.located.revision
    base = f"{source!r}, revision={revision!r}" if revision else '"PATH/TO/THE/START/MODEL"'
    return [
        "from peft import PeftModel",
        "from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, GenerationConfig"
        if quantization
        else "from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig",
        "",
        'folder = "PATH/TO/THIS/FOLDER"',
        *(_four_bit(quantization) if quantization else []),
        f'base = AutoModelForCausalLM.from_pretrained({base}, dtype="{dtype}"'
        f"{', quantization_config=four_bit' if quantization else ''})",
        "model = PeftModel.from_pretrained(base, folder).eval()",
        "model.generation_config = GenerationConfig.from_pretrained(folder)  # the tokens that end an answer",
    ]


def _four_bit(quantization: dict) -> list[str]:
    """The start model in 4 bits, as in training."""
    kept = quantization.get("llm_int8_skip_modules")
    return [
        "four_bit = BitsAndBytesConfig(  # as in training",
        '    load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,',
        f"    bnb_4bit_compute_dtype={quantization['bnb_4bit_compute_dtype']!r},",
        *([f"    llm_int8_skip_modules={kept!r},  # these stay whole"] if kept else []),
        ")",
    ]


def _where(taken: Taken, kind: str) -> str | None:
    """A command that prints the folder of a start model that is not on the Hub; "" for somebody's own folder, None
    where nobody needs it."""
    source = taken.config.model
    if kind == "merged" or taken.located.revision:
        return None
    own = source not in sources.LABS and sources.local_folder(source)
    asked = f"from poc.weights import locate; print(locate({public_name(source)!r}).folder)"
    return "" if own else f'python -c "{asked}"'


def _mapping(value) -> dict:
    return value if isinstance(value, dict) else {}
