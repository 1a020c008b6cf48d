"""`poc.rollout.sample` against transformers' `generate` and its continuous batching: tokens a second, on the CPU.

    python -m benchmarks.rollout                     # about a quarter of an hour on two cores
    python -m benchmarks.rollout --model lab:base --prompts 2 --group 2 --tokens 8 --repeats 2 --mode free

All have the same weights in float32 with a LoRA adapter that is not zero, the same prompts, temperature 1, no top-k and
no top-p. `forced`: every completion has --tokens tokens, nothing ends one; `free`: the model's own end tokens do. Every
method draws its own numbers, so that lengths differ there and tokens a second are compared. Parity first: greedy tokens
with the model's own end tokens equal those of `generate`, log-probabilities to a tolerance; exit code 1, and no times,
if ours is off; a peer that is off is marked. Then a warm-up call and --repeats rounds of one call each, in an order of
their own. Tokens are counted up to the first end token. One JSON line per mode is appended to --out.

What favours whom:
- ours also computes log-probability, entropy and self-certainty of every token and decodes the texts. `generate` and
  `continuous` do none of this; `generate_logp` keeps the logits and takes the log-probabilities from them.
- *_merged has the adapter in a copy of the weights. A trainer would have to merge anew after every step, which is not
  in the times (merge_s says what it takes, copying left out). Where ours merges, that is in its times.
- `continuous` gets a cache that fits; by itself it would fill 60 % of the memory. Starting it is in its times, as it is
  in `generate_batch`. It shares the prompt among copies; `generate` computes a prompt once per copy.

It says nothing about GPUs, long texts, or thousands of prompts, which continuous batching is made for.
"""

import argparse
import copy
import json
import math
import os
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from functools import partial
from logging import ERROR, getLogger
from pathlib import Path
from statistics import median

import torch
from huggingface_hub import constants
from rich.table import Table
from transformers import GenerationConfig
from transformers.generation import ContinuousBatchingConfig
from transformers.utils import logging

from benchmarks import timing
from benchmarks.token_stats import Off, Steps, console, showing
from poc.models import Policy, load_policy
from poc.prompts import render
from poc.records import InputError
from poc.rollout import sample

MODEL, RANK, ALPHA, SEED = "wheel:smollm2-135m-instruct", 16, 32.0, 0
MODES = ("forced", "free")
ADAPTER_STD = 0.01  # of B, which is zero in a fresh adapter
QUESTIONS = (  # with their answers
    ("A pen costs 3 dollars. What do 15 pens cost?", "45"),
    ("Tom has 24 apples and gives 9 away. How many are left?", "15"),
    ("A train travels 60 miles an hour. How far does it get in 4 hours?", "240"),
    ("Half of a class of 26 are girls. How many boys are there?", "13"),
    ("What is 47 + 38?", "85"),
    ("A book has 180 pages. Ann reads 12 a day. How many days does she need?", "15"),
    ("Eggs come in boxes of 6. How many boxes hold 54 eggs?", "9"),
    ("What is 12 * 7 - 5?", "79"),
)
TOLERANCE = {"rows": 0, "logp": 1e-3}  # rows that differ; nats
PAGE = 256  # tokens of a page of continuous batching's cache: its default
BUSY = 0.7  # processes at work before the first of ours
OURS, REFERENCE = "ours", "generate_logp"


@dataclass(frozen=True)
class Drawn:
    """Completions up to their end token, copies of a prompt side by side; log-probabilities where there are some."""

    rows: list[list[int]]
    logp: list[list[float]] | None = None

    @property
    def tokens(self) -> int:
        return sum(map(len, self.rows))


@dataclass(frozen=True)
class Task:
    """What every method is asked for."""

    policy: Policy
    prompts: list[list[int]]
    copies: int
    tokens: int  # most of a completion
    greedy: bool = False
    merged: torch.nn.Module | None = None  # a copy of the model with the adapter in its weights

    def config(self) -> GenerationConfig:
        """Without top-k, top-p and penalties. The padding is cut off again, so that any token will do for it."""
        drawing = {} if self.greedy else {"temperature": 1.0, "top_k": 0, "top_p": 1.0}
        return GenerationConfig(
            max_new_tokens=self.tokens, do_sample=not self.greedy, num_return_sequences=self.copies, pad_token_id=0,
            eos_token_id=sorted(self.policy.stop_ids) or None, disable_compile=True, **drawing,
        )  # fmt: skip

    def until_end(self, row: list[int]) -> list[int]:
        return row[: next((i + 1 for i, token in enumerate(row) if token in self.policy.stop_ids), len(row))]


# Each method takes a task and a seed.
Method = Callable[[Task, int], Drawn]


def _ours(task: Task, seed: int) -> Drawn:
    temperature = 0.0 if task.greedy else 1.0
    groups = sample(
        task.policy, task.prompts, task.copies, max_new_tokens=task.tokens, temperature=temperature, seed=seed
    )
    episodes = [episode for group in groups for episode in group]
    return Drawn([list(e.token_ids) for e in episodes], [list(e.logp) for e in episodes])


def _generate(task: Task, seed: int, merged: bool = False, with_logp: bool = False) -> Drawn:
    torch.manual_seed(seed)
    model = task.merged if merged else task.policy.model
    ids, mask = left_padded(task.prompts)
    with torch.no_grad(), blank_settings(model):
        out = model.generate(
            input_ids=ids, attention_mask=mask, generation_config=task.config(),
            return_dict_in_generate=with_logp, output_logits=with_logp,
        )  # fmt: skip
    drawn = (out.sequences if with_logp else out)[:, ids.shape[1] :]
    rows = [task.until_end(row) for row in drawn.tolist()]
    return Drawn(rows, _logp(drawn, out.logits, rows) if with_logp else None)


def left_padded(prompts: Sequence[Sequence[int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and mask."""
    width = max(map(len, prompts))
    ids = torch.tensor([[0] * (width - len(prompt)) + list(prompt) for prompt in prompts])
    return ids, torch.tensor([[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts])


def _logp(drawn: torch.Tensor, logits: Sequence[torch.Tensor], rows: list[list[int]]) -> list[list[float]]:
    """Position by position, which takes less time and memory than transformers' compute_transition_scores."""
    columns = [x.log_softmax(-1).gather(1, drawn[:, t, None]).squeeze(1) for t, x in enumerate(logits)]
    return [values[: len(row)] for values, row in zip(torch.stack(columns, 1).tolist(), rows, strict=True)]


def _continuous(task: Task, seed: int, merged: bool = False) -> Drawn:
    model, rows = task.merged if merged else task.policy.model, len(task.prompts) * task.copies
    blocks = rows * (math.ceil((max(map(len, task.prompts)) + task.tokens) / PAGE) + 1)
    batch = max(rows, sum(map(len, task.prompts)))  # all prompts at once
    fitted = ContinuousBatchingConfig(page_size=PAGE, num_blocks=blocks, max_batch_tokens=batch, seed=seed)
    with blank_settings(model):
        found = model.generate_batch(
            task.prompts, generation_config=task.config(), continuous_batching_config=fitted, progress_bar=False
        )
    errors = [out.error for out in found.values() if out.error]
    if errors or len(found) < rows:
        raise RuntimeError(f"{len(found)} of {rows} completions came back{': ' if errors else ''}{(errors or [''])[0]}")
    return Drawn([task.until_end(list(out.generated_tokens)) for out in found.values()])


@contextmanager
def blank_settings(model: torch.nn.Module):
    """Inside, the model's own generation settings (top-k, end tokens) are not there to be added to a call's."""
    inner = model.get_base_model() if hasattr(model, "get_base_model") else model
    kept = inner.generation_config
    model.generation_config = inner.generation_config = GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = inner.generation_config = kept


METHODS: dict[str, Method] = {
    OURS: _ours,
    "generate": _generate,
    REFERENCE: partial(_generate, with_logp=True),
    "generate_merged": partial(_generate, merged=True),
    "continuous": _continuous,
    "continuous_merged": partial(_continuous, merged=True),
}


def load(source: str) -> Policy:
    """In float32 on the CPU, with an adapter that changes something. Raises InputError."""
    policy = load_policy(source, quantization="none", lora_rank=RANK, lora_alpha=ALPHA, device="cpu", seed=SEED)
    generator = torch.Generator().manual_seed(SEED)
    with torch.no_grad():
        for name, parameter in policy.model.named_parameters():
            if "lora_B" in name:
                parameter.normal_(std=ADAPTER_STD, generator=generator)
    return policy


def in_mode(policy: Policy, mode: str) -> Policy:
    """forced: the same policy, but nothing ends a completion."""
    return replace(policy, stop_ids=frozenset()) if mode == "forced" else policy


def encode(policy: Policy, count: int) -> list[list[int]]:
    """The first `count` questions as prompts."""
    return [render(question, policy.tokenizer, policy.prompt_format) for question, _ in QUESTIONS[:count]]


def main(argv: list[str] | None = None) -> int:
    options = _options(argv)
    busy(options.load_before)
    quiet()
    try:
        policy = load(options.model)
        with showing(len(options.mode) * len(options.only) * (options.repeats + 2)) as steps:
            for mode in options.mode:
                record = {"command": _command(options), **timing.environment("cpu")}
                record |= _run(policy, mode, options, steps)
                _show(record)
                append(options.out, record)
    except InputError as problem:
        console.print(problem, markup=False)
        return 2
    except Off as problem:
        console.print(f"[red]OFF[/red] {problem}. Nothing of this mode was timed.")
        return 1
    except KeyboardInterrupt:
        console.print(f"interrupted; the modes that were finished are in {options.out}")
        return 130
    return 0


def _options(argv: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser("python -m benchmarks.rollout", description=__doc__.split("\n")[0])
    add_options(parser, "rollout")
    parser.add_argument("--repeats", type=positive, default=5)
    parser.add_argument("--only", type=_names, default=list(METHODS), metavar="NAME,NAME", help=", ".join(METHODS))
    options = parser.parse_args(argv)
    options.mode, options.load_before = options.mode or list(MODES), os.getloadavg()[0]
    return options


def add_options(parser: argparse.ArgumentParser, name: str) -> None:
    """What this benchmark and benchmarks.train_step have in common."""
    parser.add_argument("--model", default=MODEL)
    parser.add_argument("--prompts", type=int, choices=range(1, len(QUESTIONS) + 1), default=4)
    parser.add_argument("--group", type=positive, default=8, help="completions of a prompt")
    parser.add_argument("--tokens", type=positive, default=32, help="of a completion, at most")
    parser.add_argument("--mode", choices=MODES, action="append", help="repeatable; both by default")
    parser.add_argument("--out", type=Path, default=timing.ROOT / f"benchmarks/results/{name}.jsonl")


def positive(text: str) -> int:
    if int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text}: 1 or more is needed")
    return int(text)


def _names(text: str) -> list[str]:
    names = list(dict.fromkeys(text.split(",")))
    if unknown := [name for name in names if name not in METHODS]:
        raise argparse.ArgumentTypeError(f"{', '.join(unknown)}: valid are {', '.join(METHODS)}")
    return names


def common_words(options: argparse.Namespace) -> str:
    """The options of add_options as they would be typed, every default written out; --out may be a private path."""
    sizes = " ".join(f"--{name} {getattr(options, name)}" for name in ("model", "prompts", "group", "tokens"))
    return f"{sizes} {' '.join(f'--mode {mode}' for mode in options.mode)}"


def _command(options: argparse.Namespace) -> str:
    only = f" --only {','.join(options.only)}" if options.only != list(METHODS) else ""
    return f"python -m benchmarks.rollout {common_words(options)} --repeats {options.repeats}{only}"


def quiet() -> None:
    """No network, and no notices of other packages between our lines."""
    os.environ.update(HF_HUB_OFFLINE="1", HF_HUB_DISABLE_TELEMETRY="1")
    constants.HF_HUB_OFFLINE = True
    logging.set_verbosity_error()
    getLogger("ContinuousBatchingLogger").setLevel(ERROR)


def _run(policy: Policy, mode: str, options: argparse.Namespace, steps: Steps) -> dict:
    """The record of one mode; raises Off."""
    left_out = {}
    task = Task(policy, encode(policy, options.prompts), 1, options.tokens, greedy=True)
    task, merge_s = _with_merged(task) if any("merged" in name for name in options.only) else (task, None)
    parity = _check(task, options, left_out, steps)
    task = replace(task, policy=in_mode(policy, mode), copies=options.group, greedy=False)
    seconds, tokens = _time([name for name in options.only if name not in left_out], task, options, steps)
    rates = {name: [n / s for n, s in zip(tokens[name], seconds[name], strict=True)] for name in seconds}
    return {
        "date": now(), "model": options.model, "dtype": str(policy.dtype).removeprefix("torch."), "mode": mode,
        "lora": {"rank": RANK, "alpha": ALPHA, "std_of_b": ADAPTER_STD}, "seed": SEED,
        "prompt_tokens": [len(prompt) for prompt in task.prompts], "copies": task.copies, "max_tokens": task.tokens,
        "repeats": options.repeats, "load_before": round(options.load_before, 2), "left_out": left_out,
        "parity": parity, "tolerance": TOLERANCE, "merge_s": merge_s, "seconds": seconds, "tokens": tokens,
        "tokens_per_s": rates, "median_tokens_per_s": {name: median(values) for name, values in rates.items()},
        "ours_over": {name: spread(paired(rates[OURS], rates[name])) for name in _peers(rates)},
    }  # fmt: skip


def _peers(rates: dict[str, list[float]]) -> list[str]:
    """What ours is compared with; nothing where ours was not asked for."""
    return [name for name in rates if name != OURS] if OURS in rates else []


def _with_merged(task: Task) -> tuple[Task, float]:
    copied = copy.deepcopy(task.policy.model)
    started = time.perf_counter()
    merged = copied.merge_and_unload()
    return replace(task, merged=merged), time.perf_counter() - started


def _check(task: Task, options: argparse.Namespace, left_out: dict[str, str], steps: Steps) -> dict[str, dict]:
    """How far each method's greedy completions are from those of `generate`; raises Off for ours."""
    right, found = METHODS[REFERENCE](task, SEED), {}
    for name in options.only:
        try:
            found[name] = difference(METHODS[name](task, SEED), right)
            steps.tick(f"{name} parity")
        except Exception as error:
            if name == OURS:
                raise
            left_out[name] = f"could not run: {type(error).__name__}"
            console.print(f"{name} is left out: {left_out[name]} {' '.join(str(error).split())[:300]}", markup=False)
            steps.skip(options.repeats + 2)
    _show_parity(found)
    if OURS in found and off(found[OURS]):
        raise Off(f"ours against generate: {found[OURS]}, tolerance {TOLERANCE}")
    return found


def difference(got: Drawn, right: Drawn) -> dict[str, float | None]:
    """Rows whose tokens differ; the largest difference of a log-probability in the others, None where not computed."""
    same = [i for i, row in enumerate(right.rows) if got.rows[i] == row]
    rows = len(right.rows) - len(same)
    if got.logp is None or not same:
        return {"rows": rows, "logp": None}
    mine, theirs = (torch.tensor([x for i in same for x in drawn.logp[i]]) for drawn in (got, right))
    return {"rows": rows, "logp": (mine - theirs).abs().max().item()}


def off(found: dict[str, float | None]) -> list[str]:
    """The measures that are out of tolerance; NaN is."""
    return [name for name, most in TOLERANCE.items() if found[name] is not None and not found[name] <= most]


def _time(
    names: list[str], task: Task, options: argparse.Namespace, steps: Steps
) -> tuple[dict[str, list[float]], dict[str, list[int]]]:
    """Seconds and tokens of every call. Call number n of every method has the seed SEED + n; 0 is for warming up."""
    tokens = {name: [] for name in names}

    def call(name: str) -> None:
        tokens[name].append(METHODS[name](task, SEED + len(tokens[name])).tokens)

    for name in names:
        call(name)
        steps.tick(f"{name} warm-up")
    seconds = timing.alternate({name: partial(call, name) for name in names}, options.repeats, "cpu", steps.tick)
    return seconds, {name: counts[1:] for name, counts in tokens.items()}


def paired(first: Sequence[float], second: Sequence[float]) -> list[float]:
    """first / second, round by round."""
    return [a / b for a, b in zip(first, second, strict=True)]


def spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": median(values), "min": min(values), "max": max(values)}


def busy(load_before: float) -> None:
    """Says so where other work would be in the times: small operations on all cores suffer from it most."""
    if load_before > BUSY:
        console.print(f"[red]the machine is not quiet (load {load_before:.1f})[/red]: these times say little")


def now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


def append(path: Path, record: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        file.write(json.dumps(record) + "\n")


def _show_parity(parity: dict[str, dict]) -> None:
    table = Table("method", "rows that differ", "log-probabilities", "", title="Greedy, against generate")
    for name, found in parity.items():
        logp = "" if found["logp"] is None else f"{found['logp']:.1e}"
        table.add_row(
            name, str(found["rows"]), logp, "off" if off(found) else "ok", style="red" if off(found) else None
        )
    console.print(table)


def _show(record: dict) -> None:
    sizes = f"{len(record['prompt_tokens'])} prompts of {record['prompt_tokens']} tokens, {record['copies']} copies"
    table = Table(title=f"{record['model']} {record['mode']}: {sizes}, {record['repeats']} runs each")
    for column in ("method", "tokens/s", "spread", "mean length", "ours / this", "spread"):
        table.add_column(column, justify="left" if column == "method" else "right")
    rows = len(record["prompt_tokens"]) * record["copies"] * record["repeats"]
    for name, rates in record["tokens_per_s"].items():
        cells = [
            f"{median(rates):.1f}",
            f"{min(rates):.1f}-{max(rates):.1f}",
            f"{sum(record['tokens'][name]) / rows:.1f}",
        ]
        if ratio := record["ours_over"].get(name):
            cells += [f"{ratio['median']:.2f}", f"{ratio['min']:.2f}-{ratio['max']:.2f}"]
        table.add_row(name, *cells, style="bold" if name == OURS else None)
    console.print(table)


if __name__ == "__main__":
    sys.exit(main())
