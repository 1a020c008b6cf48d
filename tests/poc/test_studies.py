"""Whole runs on a random toy model with every new kind of feedback: what is written, who was heard, when it ended."""

import json

import pytest
import yaml

from poc import cli, pilot
from poc.config import PilotConfig, RunConfig
from poc.configfile import load
from poc.display import Watch
from poc.models import load_policy

SMALL = [
    "data.train=20", "data.holdout=4", "data.canary=2", "train.prompts_per_step=4", "train.group_size=4",
    "train.max_new_tokens=8", "evaluate.every=2", "evaluate.samples=2", "lora.rank=4", "train.steps=4",
]  # fmt: skip


@pytest.fixture
def run(tmp_path, tiny_folder):
    def start(*overrides, name="run"):
        config = load(RunConfig, None, [f"model={tiny_folder}", *SMALL, *overrides])
        job = pilot.Job(tmp_path / name, "toy", None, pilot.resolve(config))
        state = pilot.run([job], pilot.prepare([job]), Watch(config.train.steps, live=False), lambda: False)
        read = lambda path: json.loads((job.folder / path).read_text())  # noqa: E731
        steps = [json.loads(line) for line in (job.folder / "steps.jsonl").read_text().splitlines()]
        return state, steps, read

    return start


def test_a_switch_stops_a_run_early_and_says_so(run, tmp_path):
    state, steps, read = run("switch={step: 3, then: stop}", "reward={trajectory_entropy: 1.0}", "train.steps=9")
    assert state == "done" and len(steps) == 3
    assert read("outcome.json")["status"] == "done" and "stopped after step 3" in read("outcome.json")["reason"]
    assert read("evaluations/step-000003.json")["step"] == 3
    assert (tmp_path / "run/checkpoints/step-000003/adapter_model.safetensors").is_file()


def test_a_switch_hands_over_to_the_labelled_prompts(run):
    mix = ["reward={trajectory_entropy: 1.0, verifiable: 2.0}", "label_fraction=0.4", "switch={step: 2}"]
    _, steps, _ = run(*mix)
    assert [s["weights"]["verifiable"] for s in steps] == [0, 0, 2, 2]
    assert [s["weights"]["trajectory_entropy"] for s in steps] == [1, 1, 0, 0]
    assert steps[0]["labelled"] < 1 == steps[2]["labelled"]
    assert steps[2]["rewards"]["trajectory_entropy"] is None and steps[2]["rewards"]["verifiable"] is not None


def test_before_the_switch_labelled_prompts_learn_too(run):
    mix = ["reward={trajectory_entropy: 1.0, verifiable: 1.0}", "label_fraction=1.0", "switch={step: 3}"]
    _, steps, _ = run(*mix)
    assert all(s["grad_norm"] > 0 and s["rewards"]["trajectory_entropy"] is not None for s in steps[:3])
    assert steps[3]["rewards"]["trajectory_entropy"] is None


def test_what_is_not_asked_is_not_dropped(run):
    _, vote, _ = run("reward={majority_vote: 1.0}", "semantic.high=0.3")
    _, labelled, _ = run("reward={semantic_entropy: 1.0, verifiable: 1.0}", "label_fraction=1.0", name="labelled")
    assert all(s["dropped"] is None for s in (*vote, *labelled))


def test_an_arm_that_cannot_run_leaves_the_others_whole(tmp_path, tiny_folder, capsys, monkeypatch):
    told = "reward: {verifiable: 1}, motivation: {condition: full}"
    arms = f"arms=[{{model: base, reward: {{random: 1}}}}, {{model: other, {told}}}]"
    models = f"models={{base: {tiny_folder}, other: lab:base}}"
    options = [f"--set={o}" for o in (models, arms, *SMALL, "train.steps=1")]
    monkeypatch.setattr("sys.argv", ["poc", "pilot", "--out", str(tmp_path / "two"), *options])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    outcome = {p.parent.name: json.loads(p.read_text()) for p in (tmp_path / "two").rglob("outcome.json")}
    assert ended.value.code == 1 and (tmp_path / "two/report.html").is_file()
    assert outcome["base-random-seed0"]["status"] == "done"
    assert "set prompt.format to plain" in outcome["other-verifiable-full-seed0"]["reason"]


def test_all_arms_of_a_model_are_checked_before_one_trains(tmp_path, capsys, monkeypatch):
    told = "reward: {verifiable: 1}, motivation: {condition: full}"
    arms = f"arms=[{{model: base, reward: {{random: 1}}}}, {{model: base, {told}}}]"
    (tmp_path / "kept").mkdir()
    monkeypatch.setattr("sys.argv", ["poc", "pilot", "--out", str(tmp_path / "kept"), f"--set={arms}"])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 2 and "set prompt.format to plain" in capsys.readouterr().err
    assert (tmp_path / "kept").is_dir() and not list((tmp_path / "kept").iterdir())  # it was there before


def test_rules_are_told_where_they_are_scored(tmp_path):
    options = ["model=lab:instruct", *SMALL, "reward={format: 1, verifiable: -3}", "label_fraction=0.5"]
    job = pilot.Job(
        tmp_path / "x", "toy", None, pilot.resolve(load(RunConfig, None, [*options, "motivation.condition=full"]))
    )
    policy = load_policy("lab:instruct", quantization="none", lora_rank=1, lora_alpha=1)
    staged = pilot.stage(job, policy, pilot.prepare([job]).of(job))
    prompts = {e.answer is None: policy.tokenizer.decode(staged.encode(e)) for e in staged.examples}
    assert "answer" in prompts[False] and "format +1" not in prompts[False]
    assert "format +1" in prompts[True] and "is right" not in prompts[True]
    assert "-3: the marked answer is right" in prompts[False]  # with the weight: what the mix really pays


def test_one_bad_arm_spares_its_model_too(tmp_path, tiny_folder, monkeypatch, capsys):
    told = "reward: {verifiable: 1}, motivation: {condition: full}"
    arms = (
        f"arms=[{{model: one, reward: {{random: 1}}}}, {{model: two, reward: {{random: 1}}}}, {{model: two, {told}}}]"
    )
    options = [f"--set={o}" for o in (f"models={{one: {tiny_folder}, two: lab:base}}", arms, *SMALL, "train.steps=1")]
    monkeypatch.setattr("sys.argv", ["poc", "pilot", "--out", str(tmp_path / "p"), *options])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    status = {p.parent.name: json.loads(p.read_text())["status"] for p in (tmp_path / "p").rglob("outcome.json")}
    assert ended.value.code == 1
    assert status == {"one-random-seed0": "done", "two-random-seed0": "done", "two-verifiable-full-seed0": "failed"}


def test_a_stop_between_two_arms_is_an_interruption(tmp_path, tiny_folder):
    arms = "arms=[{model: base, reward: {random: 1}}, {model: base, reward: {verifiable: 1}}]"
    config = load(PilotConfig, None, [f"models={{base: {tiny_folder}}}", arms, *SMALL, "train.steps=1"])
    jobs, watch = pilot.jobs_of(config, tmp_path / "p"), Watch(2, live=False)
    ended = lambda: (tmp_path / "p/arms/base-random-seed0/outcome.json").is_file()  # noqa: E731 (Ctrl-C after the first)
    assert pilot.run(jobs, pilot.prepare(jobs), watch, ended) == "interrupted"
    assert not (tmp_path / "p/arms/base-verifiable-seed0").exists()


def test_an_error_of_input_in_the_middle_fails_its_arm_only(tmp_path, tiny_folder, monkeypatch):
    arms = "arms=[{model: base, reward: {random: 1}}, {model: base, reward: {verifiable: 1}}]"
    config = load(PilotConfig, None, [f"models={{base: {tiny_folder}}}", arms, *SMALL, "train.steps=1"])
    jobs = pilot.jobs_of(config, tmp_path / "p")

    def broken(group):
        raise pilot.InputError("math-verify is not installed")

    monkeypatch.setitem(pilot.rewards.REWARDS, "random", broken)
    assert pilot.run(jobs, pilot.prepare(jobs), Watch(2, live=False), lambda: False) == "failed"
    outcome = [json.loads((job.folder / "outcome.json").read_text()) for job in jobs]
    assert [o["status"] for o in outcome] == ["failed", "done"] and "math-verify" in outcome[0]["reason"]


def test_partial_labels_are_counted_and_the_rest_is_never_scored(run):
    _, steps, read = run(
        "reward={self_certainty: 1.0, verifiable: 1.0}", "label_fraction=0.1", "train.prompts_per_step=20"
    )
    assert read("environment.json")["labels"] == 2
    assert all(s["labelled"] == 0.1 for s in steps)  # 2 of 20 in every epoch
    _, none, read = run("reward={self_certainty: 1.0, verifiable: 1.0}", "label_fraction=0", name="none")
    assert read("environment.json")["labels"] == 0 and all(s["accuracy"] is None for s in none)
    _, plain, _ = run("reward={self_certainty: 1.0}", name="plain")
    assert [s["self_certainty"] for s in none] == [s["self_certainty"] for s in plain]  # no label, the same run


def test_all_labels_are_the_verifiable_run(run):
    _, every, _ = run("reward={format: 1.0, verifiable: 1.0}", "label_fraction=1.0")
    _, plain, _ = run("reward={verifiable: 1.0}", name="plain")
    assert [s["loss"] for s in every] == [s["loss"] for s in plain]


def test_dropped_prompts_are_counted_and_move_nothing(run):
    _, steps, _ = run("reward={semantic_entropy: 1.0}", "data.domain=logic")  # the toy never gives an answer
    assert all(s["dropped"] == s["zero_variance"] == 1.0 and s["loss"] == s["grad_norm"] == 0.0 for s in steps)
    assert all(s["agreement"] == 0 and s["rewards"]["semantic_entropy"] is None for s in steps)


def test_an_entailment_judge_clusters_free_text(run, tmp_path, monkeypatch):
    rows = "\n".join(["prompt,answer", *(f"question number {i},word {i}" for i in range(40))])
    (tmp_path / "own.csv").write_text(rows)
    free = [f"data.file={tmp_path / 'own.csv'}", "semantic={cluster: entailment, judge: policy}", "train.steps=2"]
    asked = []

    def yes(question, pairs):
        asked.append(question)
        return [True] * len(pairs)

    monkeypatch.setattr("poc.judges.policy_judge", lambda policy: yes)
    state, steps, _ = run("reward={majority_vote: 1.0}", *free, "train.max_new_tokens=24")
    assert state == "done" and all(q.startswith("question number") for q in asked) and asked
    assert any(s["agreement"] > 0 for s in steps)  # finished answers are all one to this judge


def test_motivation_is_in_the_training_prompt_only(run):
    merf = ["model=lab:instruct", "data.domain=logic", "data.ood_levels=[1]", "reward={knights_knaves: 1.0}"]
    rules = "motivation={condition: score_only, evaluate: true}"
    state, steps, read = run(*merf, rules, "train.steps=1", "train.prompts_per_step=1", "train.max_new_tokens=24")
    facts = read("environment.json")["model"]
    assert state == "done" and facts["motivation"].startswith("Evaluation Scoring Rules:")
    assert "Scoring" not in facts["instruction"]
    for view in ("", "level-1/", "motivated/"):
        assert [read(f"evaluations/{view}step-00000{i}.json")["step"] for i in (0, 1)] == [0, 1]
    plain, told = (read(f"evaluations/{v}step-000000.json")["prompts"] for v in ("", "motivated/"))
    assert [p["id"] for p in plain] == [p["id"] for p in told]
    assert [p["greedy"]["text"] for p in plain] != [p["greedy"]["text"] for p in told]
    assert -3 <= steps[0]["rewards"]["knights_knaves"] <= 3


def test_the_rules_reach_every_sample_of_training(tmp_path):
    options = ["model=lab:instruct", *SMALL, "reward={verifiable: 1.0}", "motivation.condition=full", "train.steps=1"]
    job = pilot.Job(tmp_path / "told", "toy", None, pilot.resolve(load(RunConfig, None, options)))
    seen = []

    def observer(job, policy):
        return lambda step, groups: seen.extend(
            (g.example.question, policy.tokenizer.decode(g.prompt_ids)) for g in groups
        )

    pilot.run([job], pilot.prepare([job]), Watch(1, live=False), lambda: False, observer)
    assert len({question for question, _ in seen}) == 4
    assert all(question in prompt and "Evaluation Scoring Rules:" in prompt for question, prompt in seen)


def test_each_way_of_asking_has_its_own_start(tmp_path):
    arm = "{{model: base, name: {0}, reward: {{verifiable: 1.0}}, motivation: {{condition: {0}, evaluate: true}}}}"
    arms = f"arms=[{arm.format('full')}, {arm.format('adverse')}]"
    config = load(
        PilotConfig, None, ["models={base: lab:instruct}", arms, *SMALL, "train.steps=1", "prompt.format=chat"]
    )
    jobs = pilot.jobs_of(config, tmp_path / "merf")
    pilot.run(jobs, pilot.prepare(jobs), Watch(2, live=False), lambda: False)

    def start(arm, view):
        record = json.loads((tmp_path / f"merf/arms/{arm}-seed0/evaluations/{view}step-000000.json").read_text())
        return [p["sampled"] for p in record["prompts"]]

    assert start("full", "") == start("adverse", "")  # asked without the rules: one start, measured once
    assert start("full", "motivated/") != start("adverse", "motivated/")


def test_motivation_needs_a_place_in_the_prompt(tiny_folder, tiny_policy):
    options = [f"model={tiny_folder}", "prompt.format=bare", "reward={verifiable: 1}", "motivation.condition=full"]
    job = pilot.Job(None, "toy", None, pilot.resolve(load(RunConfig, None, options)))
    with pytest.raises(pilot.InputError, match="set prompt.format to plain"):
        pilot.prompt_encoder(job, tiny_policy, "rules")


def test_a_pilot_from_mixed_starts(tmp_path, monkeypatch, capsys):
    small = [f"--set={option}" for option in (*SMALL, "train.steps=1", "evaluate.every=1")]
    monkeypatch.setattr("sys.argv", ["poc", "pilot", "--mix", "0,0.5", "--out", str(tmp_path / "mix"), *small])
    with pytest.raises(SystemExit) as ended:
        cli.main()
    assert ended.value.code == 0
    saved = yaml.safe_load((tmp_path / "mix/config.yaml").read_text())
    assert saved["models"] == {f"mix-{m}": f"mix:lab:base+lab:instruct@{m}" for m in ("0", "0.5")}
    runs = sorted((tmp_path / "mix/arms").iterdir())
    assert [r.name for r in runs] == ["mix-0-self_certainty-seed0", "mix-0.5-self_certainty-seed0"]
    entropy = [
        json.loads((r / "evaluations/step-000000.json").read_text())["summary"]["entropy"]["value"] for r in runs
    ]
    assert entropy[0] != entropy[1]
    assert PilotConfig.model_validate(saved).arms


def test_levels_come_in_equal_shares_and_unseen_ones_are_measured(tiny_folder):
    config = load(RunConfig, None, [f"model={tiny_folder}", "data={domain: logic, levels: [0, 1], ood_levels: [3], "
                  "train: 9, holdout: 6, canary: 3}"])  # fmt: skip
    job = pilot.Job(None, "toy", None, pilot.resolve(config))
    data = pilot.prepare([job]).of(job)
    assert {split: [e.level for e in part] for split, part in data.items()} == {
        "train": [0] * 5 + [1] * 4, "holdout": [0] * 3 + [1] * 3, "canary": [0, 0, 1], "level-3": [3] * 6,
    }  # fmt: skip
