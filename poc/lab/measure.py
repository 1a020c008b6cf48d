"""Measure the lab pair on hold-out questions and write the figures into README.md beside this file."""

from pathlib import Path
from statistics import fmean

import torch

from poc import __version__, pilot, statistics, tasks
from poc.config import RunConfig
from poc.configfile import load
from poc.evaluate import evaluate
from poc.lab import corpus
from poc.models import load_policy
from poc.runfolder import environment

HERE = Path(__file__).parent
PROMPTS, SAMPLES = 256, 4
START, END = "<!-- figures -->\n", "<!-- end of figures -->"


def rows_of(model: str) -> list[str]:
    """One table line per domain and level."""
    policy = load_policy(model, quantization="none", lora_rank=1, lora_alpha=1)
    lines = []
    for domain, level in corpus.SIX:
        options = [f"model={model}", f"data.domain={domain}", f"data.level={level}", f"evaluate.samples={SAMPLES}"]
        config = pilot.resolve(load(RunConfig, None, options))
        encode, _ = pilot.prompt_encoder(pilot.Job(HERE, model, None, config), policy)
        examples = tasks.generate(domain, level, "holdout", PROMPTS, seed=0)
        evaluation = evaluate(policy, examples, config, step=0, encode=encode)
        lines.append(_line(f"`{model}` | {domain} {level}", evaluation))
    return lines


def _line(head: str, evaluation: dict) -> str:
    summary = evaluation["summary"]
    greedy = statistics.bootstrap_interval([row["greedy"]["mean_entropy"] for row in evaluation["prompts"]])
    cells = [
        _percent(summary["accuracy"]), _percent(summary["accuracy_greedy"]), _nats(summary["entropy"]),
        _nats({"value": greedy.value, "low": greedy.low, "high": greedy.high}),
        f"{fmean(len(row['greedy']['text']) for row in evaluation['prompts']):.0f}",
    ]  # fmt: skip
    return f"| {head} | " + " | ".join(cells) + " |"


def _percent(entry: dict) -> str:
    return f"{100 * entry['value']:.1f} ({100 * entry['low']:.1f} to {100 * entry['high']:.1f})"


def _nats(entry: dict) -> str:
    return f"{entry['value']:.3f} ({entry['low']:.3f} to {entry['high']:.3f})"


def write() -> None:
    """Replace the figures in README.md by fresh ones and print them."""
    torch.set_num_threads(1)
    facts = environment()
    table = [
        f"{PROMPTS} hold-out questions a line, {SAMPLES} samples each at T=1; 95 % intervals by bootstrap over "
        f"questions; entropy is the mean per token. Measured {facts['started'][:10]} with kit {__version__}, torch "
        f"{facts['packages']['torch']}, {facts['hardware']['cpu']}.\n",
        "| model | domain, level | accuracy T=1, % | accuracy greedy, % | entropy T=1, nats | entropy greedy | length |",  # noqa: E501
        "| --- | --- | --- | --- | --- | --- | --- |",
        *rows_of("lab:base"),
        *rows_of("lab:instruct"),
    ]
    readme = HERE / "README.md"
    before, _, rest = readme.read_text(encoding="utf-8").partition(START)
    _, _, after = rest.partition(END)
    readme.write_text(before + START + "\n".join(table) + "\n" + END + after, encoding="utf-8")
    print("\n".join(table))


if __name__ == "__main__":
    write()
