"""A training step of the kit against TRL's GRPOTrainer: seconds in turns in one process, memory in fresh ones. CPU.

    python -m benchmarks.train_step                  # about twenty minutes on two cores, 10 GB
    python -m benchmarks.train_step --mode forced --only trl --steps 3
    python -m benchmarks.train_step --model lab:base --prompts 2 --group 2 --tokens 4 --steps 2

A step: sample a group of completions for each prompt, score them, one AdamW step on all of them. Both start from the
same weights in float32 with the same LoRA adapter on every linear layer but the head, and do the same work: temperature
1, no top-k, no top-p, no reference model, no checkpointing, learning rate and clipping alike, rewards from a hash of
place and text, so that every completion has an advantage. `forced`: every completion has --tokens tokens; `free`: the
model's own end tokens end it, and as both draw their own numbers, lengths differ (see seconds per token).

Parity first, on completions of unlike length: TRL's own loss function and ours, given the same completions, advantages
and log-probabilities of the sampler (moved, so that ratios are not 1 and some are clipped), have the same value and
gradient to a tolerance; exit code 1, and no times, if not. Then TRL's own training loop, in which ours takes its turn
before each of TRL's: A B A B. The first round is dropped. Memory: the highest resident set from the end of loading to
the end of MEMORY_STEPS steps (from the second on the optimizer's state exists), of a process that runs one method only.

TRL as it comes (loss_type dapo: divided by all tokens of the step, as ours) but for: no checkpointing, no bf16, which
is slow on a CPU, nothing logged or saved, a constant learning rate. It computes no old log-probabilities where, as
here, each rollout serves one step. Its generation is transformers' `generate`; continuous batching, the other way
without vLLM, is not faster on a CPU (benchmarks.rollout). On a CPU its loss scores every position of a sequence, prompt
and padding included. `trl_2048`: the same with tiles of 2,048 columns instead of 32,768 for the head, a constant in its
code that is made for GPUs.

How many completions go through at once: ours takes what poc.budget chooses, as in a run; TRL leaves that to its user:
here all of the step (the most common choice where it fits), with --micro-batch 8 four passes of 8, which on a CPU is
both faster and smaller. Compare with both.

What favours whom:
- ours also computes entropy and self-certainty while sampling, checks that all is finite, and reads and grades every
  answer in processes of its own, as in training; their memory (workers) is not in the peak. TRL decodes texts as well
  and computes entropies in its loss. Neither writes files; TRL's metrics are in its times, ours' step record is not.
- forced, TRL suppresses the end token (min_new_tokens), ours samples it and goes on.
- TRL's optimizer is torch's fused AdamW, ours torch's default one.
- TRL's data loading and what its loop does between two steps are not in its times.

It says nothing about GPUs, vLLM, several processes, or how well anything learns.
"""

import argparse
import gc
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from itertools import cycle
from statistics import fmean, median
from typing import NamedTuple
from unittest import mock

import torch
from rich.table import Table
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import PrinterCallback, TrainerCallback

from benchmarks import peers, rollout, timing
from benchmarks.rollout import OURS, QUESTIONS, SEED, encode, in_mode, load, paired, positive, spread
from benchmarks.token_stats import MIB, Off, Steps, console, showing
from poc import budget
from poc.config import RunConfig, Train
from poc.models import Policy
from poc.objective import advantages
from poc.records import Example, Group, InputError
from poc.rollout import graded, sample
from poc.update import check_finite, gradients, optimise

TILES = {"trl": 32768, "trl_2048": 2048}  # columns; the first is TRL's own
TRL = {
    "use_cpu": True, "bf16": False, "gradient_checkpointing": False, "lr_scheduler_type": "constant",
    "shuffle_dataset": False, "report_to": "none", "logging_strategy": "no", "save_strategy": "no",
    "disable_tqdm": True, "dataloader_pin_memory": False,
}  # fmt: skip
REPORTED = ("loss_type", "beta", "optim", "weight_decay", "max_grad_norm", "epsilon", "scale_rewards", "temperature",
            "top_p", "top_k", "steps_per_generation", "gradient_accumulation_steps", "use_vllm")  # fmt: skip
TOLERANCE = {"loss": 1e-5, "gradient": 1e-3}
SHIFTS = (0.3, -0.3, 0.0, 0.1, -0.1)  # nats; the clip is 0.2
PARTS = ("generation", "scoring", "update")
MEMORY_STEPS = 2


@dataclass(frozen=True)
class Work:
    """What a step is."""

    model: str
    mode: str
    prompts: int
    group: int
    tokens: int  # of a completion, at most
    micro_batch: int  # completions per forward and backward pass, of TRL's
    learning_rate: float
    own_micro_batch: int | None = None  # of ours; None: what poc.budget chooses, as in a run

    @property
    def rows(self) -> int:
        return self.prompts * self.group


class Turn(NamedTuple):
    """Seconds of a step and of its parts, completion tokens, completions without an advantage."""

    seconds: float
    generation: float
    scoring: float
    update: float
    tokens: int
    idle: int


def text_rewards(texts: Sequence[str]) -> list[float]:
    """In [0, 1), by place and text: no two alike, even where texts are."""
    return [zlib.crc32(f"{place} {text}".encode()) / 2**32 for place, text in enumerate(texts)]


class Ours:
    """The kit's step, as in poc.trainer."""

    def __init__(self, policy: Policy, work: Work) -> None:
        self.policy, self.work = in_mode(policy, work.mode), work
        self.config = Train(learning_rate=work.learning_rate, micro_batch=own_micro_batch(policy, work))
        self.optimizer = torch.optim.AdamW(
            policy.trainable(), lr=work.learning_rate, weight_decay=self.config.weight_decay
        )
        self.examples = [Example(f"q{i}", q, a, "math") for i, (q, a) in enumerate(QUESTIONS[: work.prompts])]

    def step(self, seed: int) -> Turn:
        marks = [time.perf_counter()]
        prompts = encode(self.policy, self.work.prompts)
        drawn = sample(
            self.policy, prompts, self.work.group, max_new_tokens=self.work.tokens, temperature=1.0, seed=seed
        )
        marks.append(time.perf_counter())
        groups, advantage = self.score(prompts, drawn, marks[1] - marks[0])
        marks.append(time.perf_counter())
        optimise(self.policy, self.optimizer, groups, advantage, self.config)
        marks.append(time.perf_counter())
        generation, scoring, update = (after - before for before, after in zip(marks, marks[1:], strict=False))
        tokens = sum(len(episode) for group in groups for episode in group.episodes)
        return Turn(marks[3] - marks[0], generation, scoring, update, tokens, int((advantage == 0).sum()))

    def score(self, prompts, drawn, budget: float) -> tuple[list[Group], Tensor]:
        judged = graded(self.examples, drawn, budget=budget)
        parts = zip(self.examples, prompts, judged, strict=True)
        groups = [Group(example, tuple(prompt), tuple(episodes)) for example, prompt, episodes in parts]
        check_finite(groups)
        texts = [episode.text for group in groups for episode in group.episodes]
        rewards = torch.tensor(text_rewards(texts), dtype=torch.float64).view(len(groups), -1)
        return groups, advantages({"text": rewards}, {"text": 1.0})


def own_micro_batch(policy: Policy, work: Work) -> int:
    """What the kit takes at once in a run of this work, unless it is told."""
    if work.own_micro_batch:
        return work.own_micro_batch
    train = Train(
        micro_batch=work.rows, max_new_tokens=work.tokens, group_size=work.group, prompts_per_step=work.prompts
    )
    longest = max(map(len, encode(policy, work.prompts)))
    return min(work.rows, budget.fit(policy, RunConfig(train=train), longest).rows["update"])


def build_trainer(policy: Policy, work: Work, steps: int, folder: str):
    """TRL's trainer on the policy's model. Raises InputError where it would not see the same prompts."""
    from datasets import Dataset
    from trl import GRPOConfig, GRPOTrainer

    policy.model.generation_config.eos_token_id = sorted(policy.stop_ids)
    asked = [_question(policy, i) for i in range(work.prompts)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        config = GRPOConfig(
            output_dir=folder, max_steps=steps, seed=SEED, learning_rate=work.learning_rate,
            per_device_train_batch_size=work.micro_batch, gradient_accumulation_steps=work.rows // work.micro_batch,
            num_generations=work.group, max_completion_length=work.tokens,
            generation_kwargs={"min_new_tokens": work.tokens} if work.mode == "forced" else None, **TRL,
        )  # fmt: skip
        trainer = GRPOTrainer(
            model=policy.model, reward_funcs=[_trl_rewards], args=config, processing_class=policy.tokenizer,
            train_dataset=Dataset.from_list([{"prompt": prompt} for prompt in asked]),
        )  # fmt: skip
    trainer.remove_callback(PrinterCallback)
    if trainer._tokenize_prompts(asked)[0] != encode(policy, work.prompts):
        raise InputError(f"model: {work.model}: TRL makes other tokens of its prompts: choose another model")
    return trainer


def _question(policy: Policy, place: int) -> str | list[dict[str, str]]:
    if policy.prompt_format == "chat":
        return [{"role": "user", "content": QUESTIONS[place][0]}]
    return policy.tokenizer.decode(encode(policy, place + 1)[-1], skip_special_tokens=True)


def _trl_rewards(completions, **_) -> list[float]:
    return text_rewards([text if isinstance(text, str) else text[0]["content"] for text in completions])


class Turns(TrainerCallback):
    """In TRL's loop: ours before each round of TRL's ways, one step each; the clock for both."""

    def __init__(self, trainer, ours: Ours | None, ways: Sequence[str], tick: Callable[[str], None]) -> None:
        self.ours, self.ways, self.tick = ours, ways, tick
        self.turns: dict[str, list[Turn]] = {name: [] for name in ([OURS] if ours else []) + list(ways)}
        self.spent, self.result = {}, {}
        self.trainer = trainer
        for name in ("_generate", "_generate_and_score_completions"):
            setattr(trainer, name, partial(self._timed, name, getattr(trainer, name)))
        trainer.add_callback(self)

    def _timed(self, name: str, method: Callable, *arguments):
        started = time.perf_counter()
        self.result[name] = method(*arguments)
        self.spent[name] = time.perf_counter() - started
        return self.result[name]

    def on_step_begin(self, args, state, control, **_) -> None:
        from trl.trainer import utils

        round_, place = divmod(state.global_step, len(self.ways))
        if place == 0 and self.ours:
            gc.collect()
            self.turns[OURS].append(self.ours.step(SEED + round_))
            self.tick(OURS)
        utils._CHUNKED_LOGPROB_CHUNK_SIZE = TILES[self.ways[place]]
        gc.collect()
        self.started = time.perf_counter()

    def on_step_end(self, args, state, control, **_) -> None:
        seconds = time.perf_counter() - self.started
        generation, whole = self.spent["_generate"], self.spent["_generate_and_score_completions"]
        tokens = sum(map(len, self.result["_generate"][1]))
        idle = int((self.result["_generate_and_score_completions"]["advantages"] == 0).sum())
        way = self.ways[(state.global_step - 1) % len(self.ways)]
        self.turns[way].append(Turn(seconds, generation, whole - generation, seconds - whole, tokens, idle))
        self.result.clear()
        self.tick(way)

    def run(self) -> dict[str, list[Turn]]:
        with warnings.catch_warnings(), mock.patch("trl.trainer.utils._CHUNKED_LOGPROB_CHUNK_SIZE"):
            warnings.simplefilter("ignore", FutureWarning)  # between TRL and transformers
            self.trainer.train()  # what its steps set is undone by mock.patch
        return self.turns


class Gradient(NamedTuple):
    loss: float
    of: dict[str, Tensor]


def parity(policy: Policy, trainer, work: Work) -> dict[str, float]:
    """How far TRL's loss and gradient and ours are apart on the same completions; neither's weights change."""
    groups, advantage = moved_groups(policy, work)
    return disagreement(our_gradient(policy, groups, advantage, work), trl_gradient(trainer, groups, advantage))


def moved_groups(policy: Policy, work: Work) -> tuple[list[Group], Tensor]:
    """Completions with the model's own end tokens, as if a policy a little different from this one had drawn them."""
    ours = Ours(policy, replace(work, mode="free"))
    prompts = encode(policy, work.prompts)
    drawn = sample(policy, prompts, work.group, max_new_tokens=work.tokens, temperature=1.0, seed=SEED)
    groups, advantage = ours.score(prompts, drawn, budget=60.0)
    return [replace(group, episodes=tuple(map(_moved, group.episodes))) for group in groups], advantage


def _moved(episode):
    return replace(episode, logp=tuple(x + shift for x, shift in zip(episode.logp, cycle(SHIFTS), strict=False)))


def our_gradient(policy: Policy, groups: Sequence[Group], advantage: Tensor, work: Work) -> Gradient:
    optimizer, config = torch.optim.SGD(policy.trainable(), lr=0.0), Train(max_grad_norm=1e9)
    loss = gradients(policy, optimizer, groups, advantage, config, own_micro_batch(policy, work)).loss
    return Gradient(loss, _taken(policy.model))


def trl_gradient(trainer, groups: Sequence[Group], advantage: Tensor) -> Gradient:
    """By TRL's compute_loss, in its own micro-batches."""
    trainer.model.train()
    trainer.current_gradient_accumulation_steps = trainer.args.gradient_accumulation_steps  # as its loop does
    loss, inputs = 0.0, trl_inputs(groups, advantage)
    for rows in torch.arange(len(inputs["advantages"])).split(trainer.args.per_device_train_batch_size):
        part = trainer.compute_loss(trainer.model, {k: v[rows] if v.dim() else v for k, v in inputs.items()})
        part.backward()
        loss += part.item()
    trainer._metrics["train"].clear()
    return Gradient(loss, _taken(trainer.model))


def trl_inputs(groups: Sequence[Group], advantage: Tensor) -> dict[str, Tensor]:
    """What TRL's loss function takes: prompts padded on the left, completions on the right."""
    rows = [(group.prompt_ids, episode) for group in groups for episode in group.episodes]
    prompt_ids, prompt_mask = rollout.left_padded([prompt for prompt, _ in rows])
    completions = [torch.tensor(episode.token_ids) for _, episode in rows]
    return {
        "prompt_ids": prompt_ids, "prompt_mask": prompt_mask,
        "completion_ids": pad_sequence(completions, batch_first=True),
        "completion_mask": pad_sequence([torch.ones_like(x) for x in completions], batch_first=True),
        "old_per_token_logps": pad_sequence([torch.tensor(episode.logp) for _, episode in rows], batch_first=True),
        "advantages": advantage.flatten().float(), "num_items_in_batch": torch.tensor(sum(map(len, completions))),
    }  # fmt: skip


def _taken(model: torch.nn.Module) -> dict[str, Tensor]:
    """The gradients, which the model has no longer."""
    found = {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}
    model.zero_grad(set_to_none=True)
    return found


def disagreement(ours: Gradient, theirs: Gradient) -> dict[str, float]:
    """Of the losses, absolute; of the gradients as one vector each, relative to TRL's length. NaN without gradients."""
    names = sorted(ours.of.keys() | theirs.of.keys())
    missing = [name for name in names if name not in ours.of or name not in theirs.of]
    if missing or not names:
        return {"loss": abs(ours.loss - theirs.loss), "gradient": float("nan")}
    mine, right = (torch.cat([side.of[name].flatten() for name in names]).double() for side in (ours, theirs))
    return {"loss": abs(ours.loss - theirs.loss), "gradient": ((mine - right).norm() / right.norm()).item()}


def off(found: dict[str, float]) -> list[str]:
    """The measures that are out of tolerance; NaN is."""
    return [name for name, most in TOLERANCE.items() if not found[name] <= most]


def main(argv: list[str] | None = None) -> int:
    options = _options(argv)
    rollout.quiet()
    if options.memory_of:
        print(json.dumps(_measure_memory(_work(options, options.mode[0]), options.memory_of)))
        return 0
    rollout.busy(options.load_before)
    ways, left_out = _choose(options)
    try:
        with showing(len(options.mode) * ((len(ways) + 1) * (options.steps + 2) + bool(ways))) as steps:
            for mode in options.mode:
                record = {"command": _command(options), **timing.environment("cpu"), "left_out": left_out}
                record |= _run(_work(options, mode), ways, options, steps)
                _show(record)
                rollout.append(options.out, record)
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
    parser = argparse.ArgumentParser("python -m benchmarks.train_step", description=__doc__.split("\n")[0])
    rollout.add_options(parser, "train_step")
    parser.add_argument("--steps", type=positive, default=5, help="that count; one more warms up")
    parser.add_argument("--only", choices=TILES, action="append", help="which of TRL's; repeatable; all by default")
    parser.add_argument("--micro-batch", type=positive, help="completions per pass of TRL; all of the step by default")
    parser.add_argument("--own-micro-batch", type=positive, help="of ours; by default what the kit chooses")
    parser.add_argument("--learning-rate", type=float, default=3e-5)
    parser.add_argument("--memory-of", choices=(OURS, *TILES), help=argparse.SUPPRESS)  # what a fresh process is told
    options = parser.parse_args(argv)
    options.mode, options.load_before = options.mode or list(rollout.MODES), os.getloadavg()[0]
    options.only = options.only or list(TILES)
    options.micro_batch = options.micro_batch or options.prompts * options.group
    if options.group < 2 or options.prompts * options.group % options.micro_batch:
        parser.error("--group is 2 or more, and --micro-batch divides --prompts x --group")
    return options


def _words(options: argparse.Namespace) -> str:
    mine = f" --own-micro-batch {options.own_micro_batch}" if options.own_micro_batch else ""
    own = f"--micro-batch {options.micro_batch} --learning-rate {options.learning_rate:g}"
    return f"{rollout.common_words(options)} {own}{mine}"


def _command(options: argparse.Namespace) -> str:
    only = "".join(f" --only {way}" for way in options.only)
    return f"python -m benchmarks.train_step {_words(options)} --steps {options.steps}{only}"


def _work(options: argparse.Namespace, mode: str) -> Work:
    return Work(
        options.model, mode, options.prompts, options.group, options.tokens, options.micro_batch, options.learning_rate,
        options.own_micro_batch,
    )  # fmt: skip


def _choose(options: argparse.Namespace) -> tuple[list[str], dict[str, str]]:
    reason = peers.unavailable("trl", "cpu")
    if reason is None:
        return options.only, {}
    console.print(f"trl is left out: {reason}; nothing is compared", markup=False)
    return [], dict.fromkeys(options.only, reason)


def _run(work: Work, ways: list[str], options: argparse.Namespace, steps: Steps) -> dict:
    """The record of one mode; raises Off."""
    policy = load(work.model)
    found, settings, turns = _take_turns(Ours(policy, work), ways, work, options.steps + 1, steps)
    timed = {name: list_[1:] for name, list_ in turns.items()}
    memory = {name: _memory_in_fresh_process(name, work.mode, options, steps) for name in timed}
    return {
        "date": rollout.now(), "model": work.model, "dtype": str(policy.dtype).removeprefix("torch."),
        "mode": work.mode, "lora": {"rank": rollout.RANK, "alpha": rollout.ALPHA, "std_of_b": rollout.ADAPTER_STD},
        "seed": SEED, "prompt_tokens": [len(prompt) for prompt in encode(policy, work.prompts)],
        "group": work.group, "max_tokens": work.tokens, "micro_batch": work.micro_batch,
        "own_micro_batch": own_micro_batch(policy, work),
        "learning_rate": work.learning_rate, "steps": options.steps, "load_before": round(options.load_before, 2),
        "trl_settings": settings, "parity": found, "tolerance": TOLERANCE,
        "turns": {name: [turn._asdict() for turn in list_] for name, list_ in timed.items()},
        "warm_up_s": {name: list_[0].seconds for name, list_ in turns.items()},
        "mean_length": {name: fmean(turn.tokens for turn in list_) / work.rows for name, list_ in timed.items()},
        "ratio": {way: ratios(timed[OURS], timed[way]) for way in ways},
        "memory_steps": MEMORY_STEPS, "memory": memory,
        "memory_ratio": {way: memory_ratios(memory[OURS], memory[way]) for way in ways},
    }  # fmt: skip


def _take_turns(ours: Ours, ways: list[str], work: Work, rounds: int, steps: Steps):
    """Parity and TRL's settings, None without TRL, and the turns of every method."""
    if not ways:
        turns = []
        for turn in range(rounds):
            turns.append(ours.step(SEED + turn))
            steps.tick(OURS)
        return None, None, {OURS: turns}
    with tempfile.TemporaryDirectory() as folder:
        trainer = build_trainer(load(work.model), work, rounds * len(ways), folder)
        found = parity(ours.policy if work.mode == "free" else load(work.model), trainer, work)
        steps.tick("parity")
        console.print(f"{work.mode}: loss and gradient, TRL's and ours, differ by {found}; tolerance {TOLERANCE}")
        if off(found):
            raise Off(f"{', '.join(off(found))}: ours against TRL's loss function")
        return found, _settings(trainer), Turns(trainer, ours, ways, steps.tick).run()


def _settings(trainer) -> dict:
    said = {name: getattr(trainer.args, name) for name in REPORTED}
    return {**TRL, **{name: getattr(value, "value", value) for name, value in said.items()}}


def ratios(ours: Sequence[Turn], theirs: Sequence[Turn]) -> dict[str, dict[str, float]]:
    """Ours over TRL's, step by step: seconds, seconds per token, and seconds of each part."""
    per_token = [[turn.seconds / turn.tokens for turn in side] for side in (ours, theirs)]
    names = ("seconds", *PARTS)
    found = {name: spread(paired(*([getattr(t, name) for t in side] for side in (ours, theirs)))) for name in names}
    return {**found, "seconds_per_token": spread(paired(*per_token))}


def memory_ratios(ours: dict | None, theirs: dict | None) -> dict[str, float] | None:
    """Ours over TRL's: the peak, the peak with the kit's other processes added to ours, and what loading left out."""
    if not ours or not theirs:
        return None
    return {
        "peak": ours["peak"] / theirs["peak"],
        "peak_with_workers": (ours["peak"] + ours["workers"]) / (theirs["peak"] + theirs["workers"]),
        "beside_loaded": (ours["peak"] - ours["loaded"]) / (theirs["peak"] - theirs["loaded"]),
    }


def _memory_in_fresh_process(name: str, mode: str, options: argparse.Namespace, steps: Steps) -> dict | None:
    words = _words(argparse.Namespace(**{**vars(options), "mode": [mode]})).split()
    paths = os.pathsep.join(path or "." for path in sys.path)  # pytest adds some that are not in the environment
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.train_step", "--memory-of", name, *words],
        cwd=timing.ROOT, env={**os.environ, "PYTHONPATH": paths}, stdout=subprocess.PIPE, text=True,
    )  # fmt: skip
    steps.tick(f"{name} memory")
    if done.returncode:
        console.print(f"{name}: its memory could not be measured (exit code {done.returncode})", markup=False)
        return None
    return json.loads(done.stdout.splitlines()[-1])


def _measure_memory(work: Work, name: str) -> dict | None:
    """In the fresh process."""
    with tempfile.TemporaryDirectory() as folder:
        policy = load(work.model)
        if name == OURS:
            ours = Ours(policy, work)
            found = timing.resident(lambda: [ours.step(SEED + i) for i in range(MEMORY_STEPS)])
        else:
            turns = Turns(build_trainer(policy, work, MEMORY_STEPS, folder), None, [name], lambda _: None)
            found = timing.resident(turns.run)
    if found is None:
        return None
    return {"loaded": found.before, "peak": found.peak, "peak_of_loading": found.earlier, "workers": timing.workers()}


def _show(record: dict) -> None:
    sizes = f"{len(record['prompt_tokens'])} prompts of {record['prompt_tokens']} tokens, {record['group']} completions"
    table = Table(title=f"{record['model']} {record['mode']}: {sizes} each, {record['steps']} steps, median seconds")
    columns = ("method", "step", "spread", *PARTS, "mean length", "peak MiB", "loaded MiB", "workers MiB")
    for column in columns:
        table.add_column(column, justify="left" if column == "method" else "right")
    for name, turns in record["turns"].items():
        table.add_row(name, *_row(record, name, turns), style="bold" if name == OURS else None)
    console.print(table)
    for way, found in record["ratio"].items():
        _show_ratio(way, found, record["memory_ratio"][way])
    if idle := sum(turn["idle"] for turns in record["turns"].values() for turn in turns):
        console.print(f"[red]{idle} completions had no advantage[/red]: ours leaves those out, TRL does not")


def _row(record: dict, name: str, turns: list[dict]) -> list[str]:
    seconds = [turn["seconds"] for turn in turns]
    cells = [f"{median(seconds):.2f}", f"{min(seconds):.2f}-{max(seconds):.2f}"]
    cells += [f"{median(turn[part] for turn in turns):.2f}" for part in PARTS]
    memory = record["memory"][name] or {}
    sizes = [f"{memory[key] / MIB:.0f}" if key in memory else "" for key in ("peak", "loaded", "workers")]
    return [*cells, f"{record['mean_length'][name]:.1f}", *sizes]


def _show_ratio(way: str, found: dict, memory: dict | None) -> None:
    said = [f"{name} {x['median']:.3f} ({x['min']:.3f}-{x['max']:.3f})" for name, x in found.items()]
    said += [f"{name} {value:.3f}" for name, value in (memory or {}).items()]
    console.print(f"ours / {way}: {', '.join(said)}", markup=False)


if __name__ == "__main__":
    sys.exit(main())
