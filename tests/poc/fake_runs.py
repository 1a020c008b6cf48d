"""Run folders as a real pilot writes them, with made-up numbers; hostile strings; a page as a browser sees it."""

import json
import re
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import yaml

from poc.config import Arm, PilotConfig
from poc.report import MAX_BYTES

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
    return write_pilot(folder, config, {label: ACCURACY[label] for label in arms}, prompts, text)


def write_pilot(folder: Path, config: PilotConfig, accuracy: dict[str, tuple], prompts: int = 48, text=str) -> Path:
    """The pilot of `config`; the arms named in `accuracy` have run."""
    write_text(folder / "config.yaml", yaml.safe_dump(config.model_dump(mode="json")))
    for arm in config.arms:
        for seed in config.seeds if arm.label in accuracy else ():
            run(
                folder / "arms" / f"{arm.label}-seed{seed}", arm, seed, prompts, text, config, curve=accuracy[arm.label]
            )
    return folder


LABELS = {0.0: (0.41, 0.47, 0.40, 0.30), 0.05: (0.41, 0.50, 0.46, 0.43), 0.1: (0.41, 0.52, 0.53, 0.50),
          0.5: (0.41, 0.55, 0.60, 0.61)}  # fmt: skip


def label_pilot(folder: Path, prompts: int = 48, seeds=(0,), internal=("self_certainty",)) -> Path:
    """Hybrids of each internal reward over label fractions, and verifiable alone on all labels."""
    mixes = [({name: 1.0, "verifiable": 1.0}, share) for name in internal for share in LABELS]
    arms = [Arm(model="base", reward=reward, label_fraction=share) for reward, share in mixes]
    arms.append(Arm(model="base", reward={"verifiable": 1.0}, label_fraction=1.0))
    arms.append(Arm(model="base", reward={"random": 1.0}))
    accuracy = {a.label: LABELS.get(a.label_fraction, (0.41, 0.55, 0.66, 0.70)) for a in arms}
    accuracy["base-random"] = (0.41, 0.42, 0.40, 0.41)
    return write_pilot(folder, PilotConfig(arms=arms, seeds=list(seeds)), accuracy, prompts)


def mixed_pilot(folder: Path, prompts: int = 48, shares=(0.0, 0.1, 0.2, 0.5, 1.0)) -> Path:
    """The first arm of the default pilot from mixed starts: the more instruct, the more it falls."""
    config = PilotConfig().mixed(list(shares))
    curves = [(0.41 + m / 5, 0.52 + m / 8, 0.50 - m / 8, 0.50 - m / 3) for m in shares]
    return write_pilot(folder, config, dict(zip((a.label for a in config.arms), curves, strict=True)), prompts)


def transfer_pilot(folder: Path, prompts: int = 24, measure=("math", "code", "logic")) -> Path:
    """Each domain alone and the mix, for two models: +0.3 on the own domain, +0.1 by the mix, -0.05 elsewhere."""
    config = PilotConfig(data={"measure": list(measure)}).transferred()
    ends = {a.label: (0.41, 0.71 if len(a.domains) == 1 else 0.51) for a in config.arms}
    write_pilot(folder, config, ends, prompts)
    for arm in config.arms:
        run_folder = folder / "arms" / f"{arm.label}-seed0"
        facts = json.loads((run_folder / "environment.json").read_text())
        facts["data"]["holdout"] = "+".join(arm.domains)
        write_json(run_folder / "environment.json", facts)
        for name in measure if len(arm.domains) > 1 else [m for m in measure if [m] != arm.domains]:
            add_view(run_folder, f"domain-{name}", (0.41, 0.36 if len(arm.domains) == 1 else 0.51), prompts)
    return folder


def many_arms(folder: Path, prompts: int = 24) -> Path:
    """Fourteen arms of one model."""
    single = ("self_certainty", "token_entropy", "trajectory_entropy", "semantic_entropy", "majority_vote",
              "verifiable", "format", "random")  # fmt: skip
    rewards = [{name: 1.0} for name in single] + [{name: 1.0, "verifiable": 1.0} for name in single[:4]]
    arms = [Arm(model="base", reward=reward) for reward in rewards]
    arms += [Arm(model="base", reward=rewards[-1], label_fraction=share) for share in (0.05, 0.1)]
    accuracy = {a.label: (0.41, 0.45, 0.4 + 0.02 * i, 0.12 + 0.045 * i) for i, a in enumerate(arms)}
    return write_pilot(folder, PilotConfig(arms=arms), accuracy, prompts)


def add_view(folder: Path, name: str, accuracy: tuple, prompts: int = 24) -> None:
    """One more measurement beside the hold-out of a run folder."""
    random, ease = np.random.default_rng(5), np.sort(np.random.default_rng(6).random(prompts))
    for i, share in enumerate(accuracy):
        rows = [question(k, ease[k] < share, share, random, str, True) for k in range(prompts)]
        path = folder / "evaluations" / name / f"step-{60 * i // (len(accuracy) - 1):06d}.json"
        write_json(path, evaluation(60 * i // (len(accuracy) - 1), rows, 0.4, random))


def run(
    folder: Path, arm, seed: int, prompts: int, text=str, config=None, labelled: bool = True, curve: tuple = ()
) -> Path:
    random = np.random.default_rng([seed, *arm.label.encode()])
    base, accuracy = not arm.model.startswith("instruct"), curve or ACCURACY[arm.label]
    made = (config or PilotConfig()).run_config(arm, seed)
    write_text(folder / "config.yaml", yaml.safe_dump(made.model_dump(mode="json")))
    write_json(folder / "environment.json", environment(arm, seed, made))
    write_json(folder / "outcome.json", {"status": "done", "reason": None, "steps": 60, "peak_memory_mib": 812.4,
               "seconds": {"total": 51.3 + seed, "rollout": 20.0, "update": 24.0, "evaluate": 7.3}})  # fmt: skip
    ease = np.sort(np.random.default_rng(7).random(prompts))  # the same questions in every arm
    start = (0.72 if base else 0.24) - 0.48 * float(made.model.partition("@")[2] or 0)
    entropy = np.linspace(start, 0.05 if "self" in arm.label else 0.3, len(accuracy))
    for i, share in enumerate(accuracy):
        step = 60 * i // (len(accuracy) - 1)
        rows = [question(k, ease[k] < share, share, random, text, labelled) for k in range(prompts)]
        write_json(folder / f"evaluations/step-{step:06d}.json", evaluation(step, rows, entropy[i], random))
    lines = [step_line(s, arm, random) for s in range(1, 61)]
    write_text(folder / "steps.jsonl", "".join(json.dumps(line) + "\n" for line in lines))
    kept = [{"text": text(f"{9 + k} + 4 = {13 + k}"), "reward": 1.0 - k / 2, "status": "correct"} for k in range(3)]
    write_text(
        folder / "samples.jsonl", json.dumps({"step": 60, "question": text("9 + 4"), "completions": kept}) + "\n"
    )
    return folder


def step_line(step: int, arm, random) -> dict:
    """What the report may look at; a part that speaks on no prompt of the step has no mean."""
    parts = {name: None if i else 0.5 for i, name in enumerate(arm.reward)}
    return {"step": step, "reward": 0.2 + 0.01 * step + random.normal(0, 0.02), "length": 20.0, "rewards": parts,
            "reward_std": parts, "agreement": 0.4 + step / 150, "semantic_entropy": 1.2 - step / 80,
            "dropped": step / 200}  # fmt: skip


def environment(arm, seed: int, config) -> dict:
    labels = (
        round(512 * (1.0 if config.label_fraction is None else config.label_fraction)) if config.needs_labels else 0
    )
    marks = {"base": "a1", "instruct": "b2"}
    return {
        "kit": "0.1.0", "commit": "3f9c1e2a7b", "dirty": False, "python": "3.11.2",
        "packages": {"torch": "2.13.0+cpu", "transformers": "5.23.0", "peft": "0.19.1"},
        "hardware": {"cpu": "AMD EPYC 9B14", "cores": 2, "memory_gib": 24, "gpu": None},
        "command": "poc pilot --seed 0", "started": "2026-11-22T13:05:11+00:00", "arm": arm.label, "role": arm.model,
        "seed": seed, "labels": labels,
        "model": {"source": config.model, "fingerprint": marks.get(arm.model, config.model.encode().hex()[-2:]) * 32,
                  "prompt_format": "bare", "instruction": "Answer after ####.", "motivation": ""},
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


HOSTILE = [
    '<script>alert(1)</script>', '</script><script>alert(1)</script>', '<svg onload=alert(1)>',
    '<img src=x onerror=alert(1)>', '</style><script>alert(1)</script>', '</pre><iframe src=https://evil.example>',
    '</title><body onload=alert(1)>', '" onmouseover="alert(1)', "' onfocus='alert(1)' autofocus='",
    'javascript:alert(1)', '<a href=javascript:alert(1)>x</a>', '[x](javascript:alert(1))', '{{7*7}}',
    "{% include '/etc/passwd' %}", "{{ ''.__class__.__mro__ }}", '${7*7}', '<%= 7*7 %>', '<!-- x',
    '--><script>alert(1)</script>', '<![CDATA[<script>alert(1)</script>]]>', '&lt;script&gt;alert(1)&lt;/script&gt;',
    '<style>*{display:none}</style>', '<link rel=stylesheet href=//evil.example/x.css>',
    '<meta http-equiv=refresh content=0>', '<base href=https://evil.example/>',
    '<form action=https://evil.example><input name=q>', '<object data=x>', '<embed src=x>',
    '<math><mtext></p><img src=x onerror=alert(1)>', '<details open ontoggle=alert(1)>', '$\\frac{1}{0}$ $x^',
    '\x00<b>\x00', 'a\u202egnp.exe\u202c', '\u2066\u2067\u200b\ufeff', '\x1b]0;title\x07\x1b[2J', '\x9b31m',
    '\ud800x', "A" * 5000, '=HYPERLINK("https://evil.example")', ']]></svg><svg/onload=alert(1)>',
    'url(https://evil.example)', '<ScRiPt>alert(1)</sCrIpT>', '<svg><animate onbegin=alert(1)>',
    '<svg><a xlink:href="javascript:alert(1)"><text>x</text></a></svg>', '<foreignObject><script>1</script>',
    'data:text/html,<script>alert(1)</script>', '{# x #}', '{{ say.code }}', '{% raw %}', '#{7*7}', '{7*7}',
    '{0.__class__}',
    '%(x)s %s %n', '@import url(//evil.example/x.css);', 'x:expression(alert(1))', '</main></body></html><h1>x',
    '<plaintext>', '<textarea>', '<noscript><p title="</noscript><img src=x onerror=alert(1)>">',
    '<template><script>alert(1)</script></template>', '\x1b]8;;https://evil.example\x07link\x1b]8;;\x07', '+cmd|calc',
    '</code></pre><script>alert(1)</script>', '</desc></title><script>alert(1)</script>',
]  # fmt: skip


class Page(HTMLParser):
    """What a browser would build: elements and attributes. `charts`: title and description of every drawing.

    `own`: the page's text without what is data: code, preformatted text, and whatever is not to be translated.
    """

    VOID = {"meta", "br", "link", "img", "input", "base", "hr", "embed"}

    def __init__(self, text: str):
        super().__init__(convert_charrefs=True)
        self.tags, self.attributes, self.words, self.charts, self.own_words = set(), [], [], [], []
        self.open = []  # (tag, whether data begins here)
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        self.attributes += attrs
        if tag == "svg":
            self.charts.append("")
        if tag not in self.VOID:
            self.open.append((tag, tag in ("code", "pre", "style") or ("translate", "no") in attrs))

    def handle_endtag(self, tag):
        if any(name == tag for name, _ in self.open):
            while self.open.pop()[0] != tag:
                pass

    def handle_data(self, data):
        self.words.append(data)
        inside = [name for name, _ in self.open]
        if "svg" in inside and inside[-1] in ("title", "desc"):
            self.charts[-1] = f"{self.charts[-1]} {data}".strip()
        if not any(is_data for _, is_data in self.open):
            self.own_words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"\s+", " ", " ".join(self.words))


def harmless(text: str) -> Page:
    parsed = Page(text)
    assert len(text.encode()) <= MAX_BYTES
    assert not parsed.tags & {"script", "iframe", "img", "a", "object", "embed", "form", "input", "link", "base", "b1"}
    assert [k for k, _ in parsed.attributes if k.startswith("on") or k in ("src", "action", "data")] == []
    urls = [v for k, v in parsed.attributes if k.split(":")[-1] == "href"]
    assert all(u.startswith("#") for u in urls)
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u200b-\u200f\u202a-\u202e\u2066-\u2069\ufeff]", text)
    assert "default-src 'none'" in text and text.count("<style") == 1
    assert "@import" not in re.search(r"<style>(.*?)</style>", text, re.S)[1]
    return parsed


def review(text: str = "the model said 42") -> dict:
    """review.json as the reviewing part writes it; `text` stands wherever a model or a person wrote something."""
    rows = [{"id": f"math-0-holdout-{k}", "model": "end", "verifier": "wrong", "human": "correct", "text": text,
             "note": text} for k in range(2)]  # fmt: skip
    return {
        "n": 40, "agreement": 0.95, "kappa": {"value": 0.9, "low": 0.7, "high": 0.97, "n": 40},
        "by_model": {"start": {"human": 0.4, "verifier": 0.35, "n": 20},
                     "end": {"human": 0.7, "verifier": 0.7, "n": 20}},
        "disagreements": rows, "reviewer": text, "date": "2026-11-26", "sample_sha256": "ab" * 32,
        "adapter_sha256": "cd" * 32,
    }  # fmt: skip
