"""Seconds and memory of a training step by group size, lengths, vocabulary and model size: measured, fitted, drawn.

    python -m benchmarks.scaling                 # about five minutes on two cores
    python -m benchmarks.scaling --repeats 1 --out /dev/null --picture /tmp/scaling.png

Random Llama-like models (what a step costs does not depend on what the weights say), float32, LoRA of rank 16, forced
lengths. One factor at a time around BASE, and HELD_OUT points in which all factors differ. The formula is that of
poc.cost, with constants in units of work instead of one set a model, so that one fit covers all sizes:

    rollout = a passes + b steps + c (body + head FLOPs of drawn and prompt tokens) + d cells of the cache read
    update  = e passes + f (FLOPs of the layers and their attention) + g (FLOPs of the head for trained tokens)

by non-negative least squares on relative errors; a pass or a step counts once a layer. The held-out points are not
fitted. Memory is the growth of the process at its highest (resident set), beside the estimate of poc.memory: peaks of a
few MiB drown in what the allocator keeps. It says nothing about GPUs.
"""

import argparse
import gc
import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median

import matplotlib

matplotlib.use("Agg")
import numpy as np
import torch
from matplotlib import pyplot as plt
from scipy.optimize import nnls
from transformers import LlamaConfig, LlamaForCausalLM

from benchmarks import timing
from poc import budget, cost, memory
from poc.config import Train
from poc.lab import tokenizer
from poc.models import Policy, load_policy
from poc.records import Example, Group
from poc.rollout import sample
from poc.update import gradients

RESULTS = timing.ROOT / "benchmarks" / "results" / "scaling.jsonl"
PICTURE = timing.ROOT / "docs" / "scaling.png"
MIB, GIGA = 2**20, 1e9
HEAD = 128 * MIB  # the most that linear_token_stats takes for its tiles


@dataclass(frozen=True, slots=True)
class Point:
    """A step: 4 prompts. `hidden`: the model's size; layers and the rest follow from it."""

    group: int = 8
    prompt: int = 64
    answer: int = 32
    vocabulary: int = 16_384
    hidden: int = 256

    @property
    def layers(self) -> int:
        return self.hidden // 32


PROMPTS = 4
BASE = Point()
FACTORS = {
    "group": ("completions of a prompt", (2, 4, 8, 16, 32)),
    "prompt": ("tokens of a prompt", (16, 64, 128, 256, 512)),
    "answer": ("tokens of a completion", (8, 16, 32, 64, 128)),
    "vocabulary": ("tokens of the vocabulary", (1024, 4096, 16_384, 65_536)),
    "hidden": ("hidden size (layers: a 32nd of it)", (64, 128, 256, 384, 512)),
}
HELD_OUT = (
    Point(4, 200, 48, 32_768, 192), Point(16, 32, 16, 8192, 320), Point(8, 100, 100, 4096, 128),
    Point(12, 150, 24, 50_000, 256),
)  # fmt: skip


def points() -> list[Point]:
    """The base once, and every other value of each factor."""
    varied = [replace(BASE, **{name: value}) for name, (_, values) in FACTORS.items() for value in values]
    return list(dict.fromkeys([BASE, *varied]))


class Step:
    """One point's model, prompts and completions."""

    def __init__(self, point: Point, folder: Path) -> None:
        self.point, self.policy = point, random_policy(point, folder)
        generator = torch.Generator().manual_seed(0)
        drawn = torch.randint(3, point.vocabulary, (PROMPTS, point.prompt), generator=generator)
        self.prompts = drawn.tolist()
        self.train = Train(prompts_per_step=PROMPTS, group_size=point.group, max_new_tokens=point.answer)
        self.shape = memory.shape_of(self.policy)
        fit = budget.choose(self.shape, self.train, 1, point.prompt, 2**40, cuda=False)
        self.micro_batch = min(fit.rows["update"], PROMPTS * point.group)
        self.optimizer = torch.optim.SGD(self.policy.trainable(), lr=0.0)
        self.advantages = torch.randn(PROMPTS, point.group, generator=generator).double()
        self.groups: list[Group] = []

    def roll_out(self) -> None:
        point, example = self.point, Example("a", "?", None, "math")
        found = sample(
            self.policy, self.prompts, point.group, max_new_tokens=point.answer, temperature=1.0, seed=0,
        )  # fmt: skip
        self.groups = [Group(example, tuple(p), tuple(e)) for p, e in zip(self.prompts, found, strict=True)]

    def update(self) -> None:
        gradients(self.policy, self.optimizer, self.groups, self.advantages, self.train, self.micro_batch)

    def estimate(self) -> dict[str, int]:
        """Bytes of each stage by poc.memory."""
        point, rows = self.point, PROMPTS * self.point.group
        length = point.prompt + point.answer
        prefill = memory.prefill_bytes(self.shape, PROMPTS, point.prompt)
        kept = memory.pass_bytes(self.shape, self.micro_batch, point.group, point.prompt, point.answer)
        tiles = min(HEAD, 4 * self.micro_batch * point.answer * point.vocabulary)
        update = kept + tiles + memory.FLOAT32 * self.shape.adapter
        return {"rollout": max(prefill, memory.sampling_bytes(self.shape, rows, length)), "update": update}


def random_policy(point: Point, folder: Path) -> Policy:
    """A random model of the point's size, without a token that ends an answer."""
    tok = tokenizer.build(chat=True)
    config = LlamaConfig(
        vocab_size=point.vocabulary, hidden_size=point.hidden, num_hidden_layers=point.layers,
        num_attention_heads=point.hidden // 32, num_key_value_heads=point.hidden // 32, head_dim=32,
        intermediate_size=3 * point.hidden, max_position_embeddings=2048, tie_word_embeddings=True,
        eos_token_id=tok.eos_token_id, pad_token_id=tok.pad_token_id, bos_token_id=None,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(0)
        LlamaForCausalLM(config).save_pretrained(folder)
    tok.save_pretrained(folder)
    policy = load_policy(str(folder), quantization="none", lora_rank=16, lora_alpha=16)
    return replace(policy, stop_ids=frozenset(), head=replace(policy.head, vocab_size=point.vocabulary))


def work(point: Point, shape: memory.Shape, micro_batch: int) -> dict[str, list[float]]:
    """The terms of the module docstring; FLOPs in units of 1e9, cells of the cache in 1e6 numbers, counts in 1e3."""
    groups, prompts = [[point.answer] * point.group] * PROMPTS, [point.prompt] * PROMPTS
    drawn = cost.sampling(prompts, groups, PROMPTS * point.group)
    passes = cost.passes(prompts, groups, micro_batch, shape.cost)
    body, head = 2 * shape.linear / GIGA, 2 * point.vocabulary * point.hidden / GIGA
    units = sum(one.tokens + shape.cost * one.pairs for one in passes)
    rollout = [
        (drawn.steps + drawn.passes) * shape.layers / 1e3, (drawn.rows + drawn.prompt_tokens) * body, drawn.rows * head,
        drawn.cells * point.hidden * shape.layers / 1e6, drawn.rows * point.vocabulary / 1e6,
    ]  # fmt: skip
    update = [
        len(passes) * shape.layers / 1e3, 2 * units * body, 2 * sum(one.trained for one in passes) * head,
        sum(one.tokens for one in passes) * point.hidden * shape.layers / 1e6,
    ]  # fmt: skip
    return {"rollout": rollout, "update": update}


def measure(point: Point, repeats: int, tick: Callable[[str], None]) -> dict:
    """One row: the point, seconds of both stages (median, least, most), bytes measured and estimated, the terms."""
    with tempfile.TemporaryDirectory() as folder:
        step = Step(point, Path(folder))
    calls = {"rollout": step.roll_out, "update": step.update}
    peaks = {name: timing.peak_extra(call, "cpu") for name, call in calls.items()}
    times = {name: [timing.seconds(call, "cpu") for _ in range(repeats)] for name, call in calls.items()}
    tick(f"{point}")
    seconds = {name: {"median": median(t), "least": min(t), "most": max(t)} for name, t in times.items()}
    terms = work(point, step.shape, step.micro_batch)
    row = {"point": asdict(point), "seconds": seconds, "peak": peaks, "estimate": step.estimate(), "terms": terms}
    del step
    gc.collect()
    return row


def fitted(rows: Sequence[dict], stage: str) -> np.ndarray:
    """Constants of the terms, none negative, with the least sum of squared relative errors."""
    terms = np.array([row["terms"][stage] for row in rows])
    seconds = np.array([row["seconds"][stage]["median"] for row in rows])
    return nnls(terms / seconds[:, None], np.ones(len(rows)))[0]


def with_fit(rows: Sequence[dict], constants: dict[str, np.ndarray]) -> list[dict]:
    """The rows with the fitted seconds of each stage."""
    found = {stage: [float(np.dot(row["terms"][stage], c)) for row in rows] for stage, c in constants.items()}
    return [row | {"fitted": {stage: values[i] for stage, values in found.items()}} for i, row in enumerate(rows)]


def errors(rows: Sequence[dict]) -> dict[str, dict[str, float]]:
    """Median and largest relative error of the fit, by stage."""
    found = {}
    for stage in ("rollout", "update"):
        off = [abs(row["fitted"][stage] / row["seconds"][stage]["median"] - 1) for row in rows]
        found[stage] = {"median": median(off), "most": max(off)}
    return found


def table(rows: Sequence[dict]) -> str:
    """Markdown: seconds measured and fitted, MiB measured and estimated."""
    of = ["rollout s", "fit", "update s", "fit", "rollout MiB", "est.", "update MiB", "est."]
    lines = [f"| {' | '.join(['G', 'prompt', 'answer', 'vocabulary', 'hidden', *of])} |"]
    lines.append("| --- " * 13 + "|")
    for row in rows:
        seconds, memory_of = row["seconds"], lambda key, stage, row=row: (row[key][stage] or 0) / MIB
        cells = [str(value) for value in row["point"].values()]
        for stage in ("rollout", "update"):
            cells += [f"{seconds[stage]['median']:.3f}", f"{row['fitted'][stage]:.3f}"]
        for stage in ("rollout", "update"):
            cells += [f"{memory_of('peak', stage):.0f}", f"{memory_of('estimate', stage):.0f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def draw(rows: Sequence[dict], path: Path) -> None:
    """A panel for each factor: measured points with their spread, the fitted line."""
    figure, axes = plt.subplots(1, len(FACTORS), figsize=(18, 3.8), layout="constrained", sharey=True)
    base = asdict(BASE)
    for axis, (name, (label, _)) in zip(axes, FACTORS.items(), strict=True):
        of = [row for row in rows if all(row["point"][k] == base[k] for k in base if k != name)]
        of.sort(key=lambda row: row["point"][name])
        x = [row["point"][name] for row in of]
        for stage, colour in (("rollout", "tab:blue"), ("update", "tab:orange")):
            seconds = [row["seconds"][stage] for row in of]
            y = np.array([s["median"] for s in seconds])
            spread = [y - [s["least"] for s in seconds], np.array([s["most"] for s in seconds]) - y]
            axis.errorbar(x, y, spread, fmt="o", color=colour, label=f"{stage}, measured", capsize=3)
            axis.plot(x, [row["fitted"][stage] for row in of], color=colour, label=f"{stage}, fitted")
        axis.set(xlabel=label, xscale="log", yscale="log")
        axis.set_xticks(x, [f"{value:,}" for value in x])
        axis.minorticks_off()
        axis.grid(alpha=0.3)
    axes[0].set_ylabel("seconds a step (4 prompts)")
    axes[0].legend(fontsize=8)
    figure.suptitle("Cost of a training step, one factor at a time; least and most as bars")
    figure.savefig(path, dpi=80)
    plt.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=3, help="timed runs of each point, after a first one")
    parser.add_argument("--out", type=Path, default=RESULTS, help="JSON lines to append to")
    parser.add_argument("--picture", type=Path, default=PICTURE)
    options = parser.parse_args()
    before = timing.environment("cpu")
    tick = lambda text: print(text, flush=True)  # noqa: E731
    rows, others = ([measure(p, options.repeats, tick) for p in some] for some in (points(), HELD_OUT))
    constants = {stage: fitted(rows, stage) for stage in ("rollout", "update")}
    rows, others = with_fit(rows, constants), with_fit(others, constants)
    print(table(rows), "\nHeld out from the fit:\n" + table(others), sep="\n")
    off = {"fitted": errors(rows), "held_out": errors(others)}
    for name, found in off.items():
        print(name, ", ".join(f"{s}: median {e['median']:.0%}, at most {e['most']:.0%}" for s, e in found.items()))
    draw(rows, options.picture)
    line = {"benchmark": "scaling", "repeats": options.repeats, "errors": off, "rows": rows, "held_out": others,
            "constants": {s: c.tolist() for s, c in constants.items()}, "environment": before}  # fmt: skip
    with options.out.open("a") as file:
        file.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
