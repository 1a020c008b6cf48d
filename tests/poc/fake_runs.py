"""Run folders as a real pilot writes them, with made-up numbers: what the report's tests read."""

import json
from pathlib import Path

import numpy as np
import yaml

from poc.config import DEFAULT_ARMS, PilotConfig

RISE_AND_FALL = (0.41, 0.47, 0.49, 0.43, 0.33, 0.22, 0.15)
ACCURACY = {
    "base-self_certainty": RISE_AND_FALL,
    "base-token_entropy": (0.41, 0.46, 0.45, 0.44, 0.41, 0.37, 0.33),
    "base-trajectory_entropy": (0.41, 0.46, 0.48, 0.48, 0.47, 0.45, 0.42),
    "base-verifiable": (0.41, 0.49, 0.56, 0.61, 0.65, 0.68, 0.70),
    "base-random": (0.41, 0.41, 0.40, 0.42, 0.41, 0.40, 0.41),
    "base-self_certainty-verifiable": (0.41, 0.50, 0.57, 0.60, 0.62, 0.63, 0.64),
    "instruct-self_certainty": (0.63, 0.62, 0.62, 0.60, 0.55, 0.52, 0.48),
    "instruct-verifiable": (0.63, 0.64, 0.66, 0.68, 0.69, 0.70, 0.71),
}  # fmt: skip


def pilot(folder: Path, prompts: int = 48, seeds=(0,), arms=tuple(ACCURACY), text=str) -> Path:
    """A pilot of `arms`; `text` turns each question and completion into what is written (for hostile strings)."""
    config = PilotConfig(seeds=list(seeds))
    write_text(folder / "config.yaml", yaml.safe_dump(config.model_dump(mode="json")))
    for arm in DEFAULT_ARMS:
        if arm.label in arms:
            for seed in seeds:
                run(folder / "arms" / f"{arm.label}-seed{seed}", arm, seed, prompts, text, config)
    return folder


def run(folder: Path, arm, seed: int, prompts: int, text=str, config=None, labelled: bool = True) -> Path:
    random = np.random.default_rng([seed, *arm.label.encode()])
    base, accuracy = arm.model == "base", ACCURACY[arm.label]
    config = (config or PilotConfig()).run_config(arm, seed).model_dump(mode="json")
    write_text(folder / "config.yaml", yaml.safe_dump(config))
    write_json(folder / "environment.json", environment(arm, seed))
    write_json(folder / "outcome.json", {"status": "done", "reason": None, "steps": 60, "peak_memory_mib": 812.4,
               "seconds": {"total": 51.3 + seed, "rollout": 20.0, "update": 24.0, "evaluate": 7.3}})  # fmt: skip
    ease = np.sort(np.random.default_rng(7).random(prompts))  # the same questions in every arm
    entropy = np.linspace(0.72 if base else 0.24, 0.05 if "self" in arm.label else 0.3, len(accuracy))
    for i, share in enumerate(accuracy):
        rows = [question(k, ease[k] < share, share, random, text, labelled) for k in range(prompts)]
        write_json(folder / f"evaluations/step-{10 * i:06d}.json", evaluation(10 * i, rows, entropy[i], random))
    lines = [{"step": s, "reward": 0.2 + 0.01 * s + random.normal(0, 0.02), "length": 20.0} for s in range(1, 61)]
    write_text(folder / "steps.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    kept = [{"text": text(f"{9 + k} + 4 = {13 + k}"), "reward": 1.0 - k / 2, "status": "correct"} for k in range(3)]
    write_text(
        folder / "samples.jsonl", json.dumps({"step": 60, "question": text("9 + 4"), "completions": kept}) + "\n"
    )
    return folder


def environment(arm, seed: int) -> dict:
    return {
        "kit": "0.1.0", "commit": "3f9c1e2a7b", "dirty": False, "python": "3.11.2",
        "packages": {"torch": "2.13.0+cpu", "transformers": "5.23.0", "peft": "0.19.1"},
        "hardware": {"cpu": "AMD EPYC 9B14", "cores": 2, "memory_gib": 24, "gpu": None},
        "command": "poc pilot --seed 0", "started": "2026-11-22T13:05:11+00:00", "arm": arm.label, "role": arm.model,
        "seed": seed,
        "model": {"source": f"lab:{arm.model}", "fingerprint": ("a1" if arm.model == "base" else "b2") * 32,
                  "prompt_format": "bare", "instruction": "Answer after ####."},
        "data": {"train": "c3" * 32, "holdout": "d4" * 32, "canary": "e5" * 32,
                 "counts": {"train": 512, "holdout": 256, "canary": 64}},
    }  # fmt: skip


def question(k: int, likely: bool, share: float, random, text, labelled: bool) -> dict:
    gold = 40 + 3 * k
    chance = 0.85 * share / max(share, 0.5) if likely else 0.12 * share
    drawn = [completion(gold, random.random() < chance, random, text, labelled) for _ in range(4)]
    return {"id": f"math-0-holdout-{k}", "question": text(f"{17 + k} + {23 + 2 * k}"), "gold": str(gold),
            "greedy": completion(gold, likely, random, text, labelled), "sampled": drawn}  # fmt: skip


def completion(gold: int, right: bool, random, text, labelled: bool) -> dict:
    answer = gold if right else gold + int(random.integers(1, 9))
    return {"text": text(f"{gold // 10 * 10} + {gold % 10} = {answer}\n#### {answer}"), "finished": True, "length": 21,
            "status": ("correct" if right else "wrong") if labelled else None, "formatted": True if labelled else None,
            "correct_anyhow": bool(right) if labelled else None, "mean_logp": -0.3, "mean_entropy": 0.4}  # fmt: skip


def evaluation(step: int, rows: list[dict], entropy: float, random) -> dict:
    def summary(value, half=0.02):
        return {"value": value, "low": max(0.0, value - half), "high": value + half, "n": len(rows)}

    right = [c["status"] == "correct" for r in rows for c in r["sampled"]]
    greedy = [r["greedy"]["status"] == "correct" for r in rows]
    numbers = {
        "accuracy": np.mean(right),
        "accuracy_greedy": np.mean(greedy),
        "pass@4": 0.7,
        "format": 0.97,
        "truncated": 0.01,
        "accuracy_anyhow": np.mean(right),
        "entropy": entropy,
        "transitional_words": 0.012 - step / 9000,
        "ece": 0.11,
    }
    found = {k: summary(float(v)) for k, v in numbers.items()} | {"length": summary(21 + 9 * entropy, 0.7)}
    found["auroc"] = {"value": None, "low": None, "high": None, "n": len(rows)}
    return {"step": step, "temperature": 1.0, "samples": 4, "seconds": 1.2, "summary": found, "prompts": rows}


def write_json(path: Path, data: dict) -> None:
    write_text(path, json.dumps(data))


def write_text(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
