"""`poc graduate`: TRL is paid as the kit pays, asked what the kit asks, told no more; one real step where trl is there.

Run as a script, `test_graduate.py FOLDER` takes a graduated folder's first step and prints it beside the kit's own.
"""

import importlib.util
import json
import os
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from vocab_kernels import token_stats

import poc.session
from poc import cli, pilot, rewards, tasks
from poc.config import REWARDS, RunConfig
from poc.configfile import load
from poc.graduate import groups, prompts, settings
from poc.graduate.adapter import KitRewards
from poc.graduate.folder import graduate
from poc.graduate.origin import Origin, read
from poc.graduate.statistics import statistics
from poc.models import load_policy
from poc.order import cycle_of, derived_seed
from poc.records import Episode, Example, Group, InputError, RunError
from poc.rewards.meanings import mathematical, with_meanings
from poc.rollout import graded, rollout
from poc.scoring.pool import grade
from poc.trainer import score
from tests.poc.runs import job, resume, run

ROOT = Path(__file__).resolve().parent.parent.parent
SMALL = ["data.train=16", "data.holdout=4", "data.canary=0", "train.group_size=5", "train.prompts_per_step=3"]
RUN = ["train.steps=4", "train.checkpoint_every=1", "prompt.format=plain"]


def configured(*overrides: str) -> RunConfig:
    return pilot.resolve(load(RunConfig, None, ["model=lab:base", "train.temperature=0.7", *SMALL, *overrides]))


def asked(config: RunConfig, policy, count: int = 3) -> list[prompts.Question]:
    """Questions as a graduated folder holds them."""
    examples = tasks.load(config.data, config.train.seed)["train"]
    return prompts.render(config, pilot.training_questions(config, examples)[:count], policy.tokenizer)


def answered(question: prompts.Question, policy) -> list[list[int]]:
    """A right answer, a wrong one twice, one that is cut off, one without a mark."""
    gold = (
        tasks.generate("math", 0, "train", 1, 0)[0].answer if not question.example.answer else question.example.answer
    )
    texts = (f"so it is #{gold}", "1+1=2 #7", "#7", f"#{gold}", "I say no")
    ids = [policy.tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    return [tokens + [policy.tokenizer.eos_token_id] * (i != 3) for i, tokens in enumerate(ids)]


def episode(policy, prompt: list[int], tokens: list[int], temperature: float) -> Episode:
    """One completion with the statistics of plain logits, computed alone, without padding."""
    with torch.no_grad():
        logits = policy.model(torch.tensor([[*prompt, *tokens]])).logits[0, len(prompt) - 1 : -1].double()
    stats = token_stats(logits, torch.tensor(tokens), temperature=temperature, backend="reference")
    finished = tokens[-1] in policy.stop_ids
    text = policy.tokenizer.decode(tokens[: len(tokens) - finished], skip_special_tokens=True)
    return Episode(tuple(tokens), text, finished, *(tuple(column.tolist()) for column in stats))


def kit_groups(config: RunConfig, policy, questions, step: int) -> list[Group]:
    """What the kit's rewards would see of these completions at `step`."""
    seed = derived_seed(config.train.seed, "rollout", cycle_of(step, config))
    examples = [question.example for question in questions]
    ids = [policy.tokenizer(question.prompt)["input_ids"] for question in questions]
    drawn = [
        [episode(policy, prompt, tokens, config.train.temperature) for tokens in answered(question, policy)]
        for question, prompt in zip(questions, ids, strict=True)
    ]
    found = zip(examples, ids, graded(examples, drawn, budget=5.0), strict=True)
    return [with_meanings(Group(e, tuple(i), tuple(episodes), seed), mathematical) for e, i, episodes in found]


def called(kit: KitRewards, questions, completions, done: int = 0) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
    """What every function returns [P, G] and logs when TRL calls it, `done` steps after its start."""
    repeated = [question for question, of_it in zip(questions, completions, strict=True) for _ in of_it]
    logged, ids = {}, [tokens for of_it in completions for tokens in of_it]
    arguments = dict(
        prompts=[q.prompt for q in repeated], completions=[""] * len(ids), completion_ids=ids,
        id=[q.example.id for q in repeated], trainer_state=SimpleNamespace(global_step=done),
        log_metric=logged.__setitem__, log_extra=None,
    )  # fmt: skip
    paid = {function.__name__: function(**arguments) for function in kit.functions()}
    return {name: torch.tensor(values).view(len(questions), -1) for name, values in paid.items()}, logged


@pytest.mark.parametrize("name", REWARDS)
def test_the_rewards_are_the_kits(name, tiny_policy):
    domain = ["data.domain=logic"] if name == "knights_knaves" else []
    config = configured(f"reward={{{name}: 1.0}}", *domain)
    questions = asked(config, tiny_policy)
    kit = KitRewards(config, [q.example for q in questions], tiny_policy, step=4, normalised=False)
    found, logged = called(kit, questions, [answered(q, tiny_policy) for q in questions], done=2)
    groups = kit_groups(config, tiny_policy, questions, step=7)
    expected = torch.tensor([rewards.apply(name, rewards.select(config)[name], group) for group in groups])
    assert len(expected.unique()) > 1
    torch.testing.assert_close(found[name], expected, atol=2e-5, rtol=2e-5)
    assert logged[f"raw/{name}"] == pytest.approx(expected.mean().item(), rel=1e-4)


MIXES = {
    "one": ["reward={self_certainty: 2.0}"],
    "weights": ["reward={self_certainty: 1.0, verifiable: 0.5, semantic_entropy: -0.3}"],
    "schedule": [
        "reward={token_entropy: 1.0, verifiable: 0.0}",
        "schedule={token_entropy: {to: 0}, verifiable: {to: 2}}",
    ],
    "some labels": ["reward={trajectory_entropy: 1.0, verifiable: 0.5, format: 0.2}", "label_fraction=0.5"],
    "limits": ["reward={semantic_entropy: 1.0, random: 0.5}", "semantic.high=0.7"],
}


@pytest.mark.parametrize("overrides", MIXES.values(), ids=MIXES)
def test_what_trl_adds_up_is_the_kits_advantage(overrides, tiny_policy):
    config = configured("train.steps=10", *overrides)
    questions = asked(config, tiny_policy, count=6)
    kit = KitRewards(config, [q.example for q in questions], tiny_policy, step=3)
    found, _ = called(kit, questions, [answered(q, tiny_policy) for q in questions], done=1)
    weights = settings.grpo_config(Origin(Path(), config, None, 3, {}, {}, []))["reward_weights"]
    total = sum(weight * found[name] for name, weight in zip(config.reward, weights, strict=True))
    expected = score(5, kit_groups(config, tiny_policy, questions, step=5), rewards.select(config), config, False)
    torch.testing.assert_close((total - total.mean(1, keepdim=True)).double(), expected.advantage, atol=1e-3, rtol=1e-3)
    assert expected.advantage.abs().sum() > 1


def test_a_part_that_does_not_speak_is_nan_to_trl(tiny_policy):
    config = configured("reward={format: 1.0, verifiable: 1.0}", "label_fraction=0.5")
    questions = asked(config, tiny_policy, count=6)
    kit = KitRewards(config, [q.example for q in questions], tiny_policy, normalised=False)
    found, _ = called(kit, questions, [answered(q, tiny_policy) for q in questions])
    labelled = torch.tensor([q.example.answer is not None for q in questions])
    assert 0 < labelled.sum() < 6
    assert torch.equal(found["verifiable"].isnan().all(1), ~labelled)
    assert torch.equal(found["format"].isnan().all(1), labelled)


def test_the_statistics_are_those_that_the_sampler_recorded(tiny_policy):
    config = configured("reward={self_certainty: 1.0}")
    questions = asked(config, tiny_policy)
    ids = [tiny_policy.tokenizer(q.prompt)["input_ids"] for q in questions]
    groups = rollout(
        tiny_policy, [q.example for q in questions], ids, group_size=5, max_new_tokens=9, temperature=0.7, seed=1
    )
    rows = [(g.prompt_ids, e) for g in groups for e in g.episodes]
    assert len({len(e) for _, e in rows}) > 1
    for model in (None, tiny_policy.model):  # the body and the head, or the whole where it is sharded
        found = statistics(
            tiny_policy, [p for p, _ in rows], [e.token_ids for _, e in rows], temperature=0.7, rows=4, model=model
        )
        for (_, e), stats in zip(rows, found, strict=True):
            assert stats.logp == pytest.approx(e.logp, abs=1e-4)
            assert stats.entropy == pytest.approx(e.entropy, abs=1e-4)
            assert stats.self_certainty == pytest.approx(e.self_certainty, abs=1e-4)


def test_a_token_that_the_kit_never_draws_ends_the_run(tiny_policy):
    with pytest.raises(RunError, match="padding row"):
        statistics(tiny_policy, [[5]], [[tiny_policy.head.vocab_size]], temperature=1.0, rows=1)


def test_an_exception_in_a_reward_is_never_a_reward(tiny_policy, monkeypatch):
    monkeypatch.setitem(rewards.REWARDS, "format", lambda group: 1 / 0)
    config = configured("reward={format: 1.0}")
    questions = asked(config, tiny_policy)
    kit = KitRewards(config, [q.example for q in questions], tiny_policy)
    with pytest.raises(RunError, match="reward format of math-0-.*ZeroDivisionError"):
        called(kit, questions, [answered(q, tiny_policy) for q in questions])


def test_no_gold_is_shown_to_a_reward_that_needs_none(tiny_policy, monkeypatch):
    seen = []

    def spy(group: Group) -> list[float]:
        seen.append((group.example.answer, group.example.check, {e.verdict for e in group.episodes}))
        return [0.0] * len(group.episodes)

    monkeypatch.setitem(rewards.REWARDS, "majority_vote", spy)
    config = configured("reward={majority_vote: 1.0, verifiable: 1.0}")
    questions = [q._replace(example=replace(q.example, check="{}")) for q in asked(config, tiny_policy)]
    kit = KitRewards(config, [q.example for q in questions], tiny_policy)
    found, _ = called(kit, questions, [answered(q, tiny_policy) for q in questions])
    assert seen == [(None, "", {None})] * 3 and found["verifiable"].abs().sum() > 0


def test_groups_are_made_once_a_call_and_anew_for_the_next(tiny_policy, monkeypatch):
    calls, config = [], configured("reward={token_entropy: 1.0, format: 1.0, majority_vote: 1.0}")
    monkeypatch.setattr(groups, "grade", lambda *a, **k: calls.append(a) or grade(*a, **k))
    questions = asked(config, tiny_policy)
    kit = KitRewards(config, [q.example for q in questions], tiny_policy, normalised=False)
    drawn = [answered(q, tiny_policy) for q in questions]
    first, _ = called(kit, questions, drawn)
    second, _ = called(kit, questions, [of_it[::-1] for of_it in drawn], done=1)
    assert len(calls) == 2 and all(torch.equal(first[name], second[name].flip(1)) for name in first)


def test_a_token_that_ends_an_answer_is_no_part_of_its_text(tiny_policy):
    config = configured("reward={format: 1.0}", "train.group_size=2")
    ids = tiny_policy.tokenizer("#7?", add_special_tokens=False)["input_ids"]
    maker = groups.Groups(config, [Example("a", "1+1=?", None, "math")], tiny_policy)
    call = partial(maker.of, ["1+1=?\n"] * 2, [ids, ids[:-1]], ["a", "a"], 1)
    assert [(e.text, e.finished, e.formatted) for e in call()[0].episodes] == [
        ("#7?", False, False),
        ("#7", False, True),
    ]
    tiny_policy.stop_ids |= {ids[-1]}  # not a special token
    assert [(e.text, e.finished) for e in call()[0].episodes] == [("#7", True), ("#7", False)]


@pytest.mark.parametrize("ids", ["aaab", "aaabbb", "aabaab"])
def test_a_split_group_is_an_error_that_names_it(ids, tiny_policy):
    config = configured("reward={random: 1.0}", "train.group_size=3")
    examples = [Example(name, "1+1=?", None, "math") for name in "ab"]
    kit = KitRewards(config, examples, tiny_policy)
    count = len(ids)
    call = partial(kit.groups.of, ["1+1=?\n"] * count, [[5]] * count, list(ids), 1)
    if ids == "aaabbb":
        assert [group.example.id for group in call()] == ["a", "b"]
    else:
        with pytest.raises(ValueError, match=f"num_generations = 3, but the {count} completions"):
            call()


def test_a_step_is_shared_out_in_whole_groups():
    options = {"num_generations": 8, "per_device_train_batch_size": 24}
    for processes, at_once, pieces in ((1, 16, 8), (4, 16, 2), (16, 8, 1)):
        found = settings.shared(options, 128, processes)
        assert (found["per_device_train_batch_size"], found["gradient_accumulation_steps"]) == (at_once, pieces)
    with pytest.raises(InputError, match="num_generations = 8: 128 completions .* 3 processes"):
        settings.shared(options, 128, 3)
    for completions, processes in ((128, 32), (80, 9)):
        with pytest.raises(InputError, match=f"num_generations = 8: {completions} completions"):
            settings.shared(options, completions, processes)


@pytest.mark.parametrize("style", ["bare", "plain", "chat"])
@pytest.mark.parametrize("begins", [False, True])
def test_a_prompt_is_read_back_as_the_same_tokens(style, begins, tiny_policy):
    tokenizer = tiny_policy.tokenizer
    if begins:
        _adds(tokenizer, "<eos> $A")
        tokenizer.bos_token = "<eos>"
    config = configured(f"prompt.format={style}", "prompt.instruction=Say it.")
    turns = (
        {"role": "user", "content": "1+1=?"},
        {"role": "assistant", "content": "2"},
        {"role": "user", "content": "?"},
    )
    examples = [
        Example("a", "1+1=?", "2", "own"),
        Example("b", turns, None, "own"),
        Example("c", " ü\n\n x ", "#", "own"),
    ]
    encode, _ = pilot.prompt_encoder(pilot.Job(Path(), "", None, config), tiny_policy)
    for question, example in zip(prompts.render(config, examples, tokenizer), examples, strict=True):
        assert list(tokenizer(text=[question.prompt])["input_ids"][0]) == encode(example)
        assert (encode(example)[0] == tokenizer.bos_token_id) == begins


def test_a_prompt_that_is_no_text_is_refused(tiny_policy):
    _adds(tiny_policy.tokenizer, "$A <eos>")  # to every text; the kit takes it off again, TRL would not
    with pytest.raises(InputError, match="a: no text is read back"):
        prompts.render(configured(), [Example("a", "1+1=?", "2", "own")], tiny_policy.tokenizer)


def _adds(tokenizer, template: str) -> None:
    from tokenizers.processors import TemplateProcessing

    backend = tokenizer.backend_tokenizer
    backend.post_processor = TemplateProcessing(single=template, special_tokens=[("<eos>", tokenizer.eos_token_id)])


def test_questions_are_written_and_read(tmp_path):
    turns = ({"role": "user", "content": "\u2028é"},)
    questions = [
        prompts.Question("p\n", Example("a", "q\r\n", "2", "own", 1, "{}")),
        prompts.Question("r", Example("b", turns, None, "x")),
    ]
    prompts.write(tmp_path / "p.jsonl", questions)
    assert prompts.read(tmp_path / "p.jsonl") == questions
    (tmp_path / "p.jsonl").write_text('{"prompt": "x"}\n')
    with pytest.raises(InputError, match="line 1"):
        prompts.read(tmp_path / "p.jsonl")


# ---- the folder


@pytest.fixture
def ran(tmp_path, tiny_folder):
    """A function that makes a run folder: (name, *overrides, stop_after=None) -> path."""

    def make(name: str, *overrides: str, stop_after: int | None = None) -> Path:
        run([job(tmp_path / name, tiny_folder, [*RUN, *overrides])], stop_after)
        return tmp_path / name

    return make


def test_the_folder(ran, tmp_path):
    options = ["train.kl=0.1", "train.clip=0.3", "train.weight_decay=0.02", "train.max_grad_norm=0.7", "train.seed=5"]
    folder, out = ran("run", "train.temperature=0.9", "reward={random: 2.0}", *options, stop_after=3), tmp_path / "out"
    assert "after step 3" in "\n".join(graduate(folder, "trl", out))
    names = {path.name for path in out.iterdir()}
    assert names == {
        "README.md", "train_trl.py", "merge.py", "config.yaml", "grpo_config.json", "origin.json", "prompts.jsonl",
        "adapter", "accelerate_configs",
    }  # fmt: skip
    given = json.loads((out / "grpo_config.json").read_text())
    wanted = dict(
        max_steps=1, learning_rate=0.01, temperature=0.9, top_k=0, top_p=1.0, max_completion_length=6,
        num_generations=4, generation_batch_size=8, beta=0.1, epsilon=0.3, loss_type="dapo", scale_rewards="none",
        reward_weights=[2.0], max_grad_norm=0.7, weight_decay=0.02, seed=5, lr_scheduler_type="constant",
        warmup_steps=0, use_bias_correction_kl=False,
    )  # fmt: skip
    assert {key: given[key] for key in wanted} == wanted
    last = folder / "checkpoints" / "step-000003" / "adapter_model.safetensors"
    assert (out / "adapter" / "adapter_model.safetensors").read_bytes() == last.read_bytes()
    page = (out / "README.md").read_text()
    assert 'pip install "trl==1.16.0"' in page and "not tested on GPUs" in page and "what is left of 4" in page
    assert load(RunConfig, str(out / "config.yaml")).prompt.format == "plain"
    compile((out / "train_trl.py").read_text(), "train_trl.py", "exec")


def test_optimizer_and_recomputing():
    def given(*overrides: str) -> tuple[str, bool]:
        found = settings.grpo_config(Origin(Path(), configured(*overrides), None, 0, {}, {}, []))
        return found["optim"], found["gradient_checkpointing"]

    assert given() == ("adamw_torch", True)  # null: where memory needs it, which is not known for another machine
    assert given("train.optimizer=adamw8bit", "train.recompute=false") == ("adamw_bnb_8bit", False)


def test_a_run_without_a_checkpoint_starts_afresh_and_a_finished_one_again(ran, tmp_path):
    folder = ran("run")
    assert read(folder).steps == 4 and read(folder).step == 4
    for path in folder.glob("checkpoints/*"):
        for file in path.iterdir():
            file.unlink()
        path.rmdir()
    (folder / "outcome.json").unlink()  # killed
    graduate(folder, "trl", tmp_path / "out")
    assert not (tmp_path / "out" / "adapter").exists()
    assert "The guard ended" not in (tmp_path / "out" / "README.md").read_text()
    assert json.loads((tmp_path / "out" / "origin.json").read_text())["step"] == 0


def test_the_checkpoint_that_the_guard_went_back_to(ran, tmp_path):
    folder = ran("run")
    outcome = json.loads((folder / "outcome.json").read_text())
    (folder / "outcome.json").write_text(json.dumps(outcome | {"status": "stopped", "kept": 3, "reason": "it fell"}))
    graduate(folder, "trl", tmp_path / "out")
    assert read(folder).step == 3 and "this run: it fell." in (tmp_path / "out" / "README.md").read_text()
    (folder / "checkpoints" / "step-000003" / "adapter_model.safetensors").write_bytes(b"")
    with pytest.raises(InputError, match="damaged"):
        read(folder)


def test_golds_are_hidden_from_a_run_that_needs_none_and_where_a_fraction_hides_them(ran, tmp_path):
    def golds(*overrides: str) -> list[str | None]:
        name = f"run{len(list(tmp_path.iterdir()))}"
        graduate(ran(name, "train.steps=1", *overrides), "trl", tmp_path / f"{name}-out")
        lines = (tmp_path / f"{name}-out" / "prompts.jsonl").read_text().splitlines()
        return [json.loads(line)["answer"] for line in lines]

    assert golds("reward={self_certainty: 1.0, format: 1.0}") == [None] * 16
    all_of_them = golds("reward={verifiable: 1.0}")
    assert None not in all_of_them
    some = golds("reward={verifiable: 1.0, random: 1.0}", "label_fraction=0.25")
    kept = pilot.training_questions(
        configured("reward={verifiable: 1.0}", "label_fraction=0.25", "data.canary=2"),
        tasks.load(configured("data.canary=2").data, 0)["train"],
    )
    assert some == [example.answer for example in kept] and some.count(None) == 12


def test_hidden_tests_go_with_the_gold(tmp_path):
    from poc.graduate.origin import _as_seen

    examples = [Example("a", "q", "2", "code", 0, "tests"), Example("b", "q", None, "code", 0, "tests")]
    assert [e.check for e in _as_seen(configured("reward={verifiable: 1.0}"), examples)] == ["tests", ""]
    assert [(e.answer, e.check) for e in _as_seen(configured("reward={format: 1.0}"), examples)] == [(None, "")] * 2


@pytest.mark.parametrize("reuse, passes, stop", [(1, 1, 1), (2, 1, 2), (2, 2, 4)])
def test_the_prompts_come_in_the_order_of_the_kit(reuse, passes, stop, ran, monkeypatch):
    drawn, original = [], poc.session.rollout
    monkeypatch.setattr(poc.session, "rollout", lambda p, e, *a, **k: drawn.extend(e) or original(p, e, *a, **k))
    options = ["train.steps=8", "data.train=7", f"train.rollout_reuse={reuse}", f"train.inner_epochs={passes}"]
    folder = ran("run", *options, stop_after=stop)
    origin, before = read(folder), len(drawn)
    resume(folder)
    given = settings.grpo_config(origin)
    assert given["generation_batch_size"] == reuse * 2 * 4 and given["num_iterations"] == passes
    places = settings.order(origin.config, origin.examples, origin.step, origin.steps)
    assert [origin.examples[i].id for i in places] == [e.id for e in drawn[before:]]


def test_rules_of_the_reward_stay_in_the_prompts(ran, tmp_path):
    folder = ran("run", "train.steps=1", "motivation.condition=full", "reward={verifiable: 1.0}")
    origin = read(folder)
    graduate(folder, "trl", tmp_path / "out")
    question = prompts.read(tmp_path / "out" / "prompts.jsonl")[0]
    assert "answer +1: the marked answer is right" in question.prompt and origin.examples[0] == question.example


def test_after_a_switch_the_parts_that_need_labels_are_left(ran):
    options = ["reward={self_certainty: 1.0, verifiable: 0.5}", "switch.step=2", "label_fraction=0.5"]
    with pytest.raises(InputError, match="has not happened by step 1"):
        read(ran("early", *options, stop_after=1))
    origin = read(ran("late", *options, stop_after=3))
    assert origin.config.reward == {"verifiable": 0.5} and origin.config.switch is None
    assert len(origin.examples) == 8 and all(example.answer for example in origin.examples)


def test_other_weights_than_the_run_began_with_are_refused(ran, tmp_path):
    folder = ran("run", "train.steps=1")
    told = json.loads((folder / "environment.json").read_text())
    (folder / "environment.json").write_text(json.dumps(told | {"model": told["model"] | {"fingerprint": "0"}}))
    with pytest.raises(InputError, match="the weights of .* are not those"):
        graduate(folder, "trl", tmp_path / "out")
    (folder / "environment.json").write_text(json.dumps(told | {"data": told["data"] | {"train": "0"}}))
    with pytest.raises(InputError, match="the questions of train are not those"):
        graduate(folder, "trl", tmp_path / "out")
    assert not (tmp_path / "out").exists()


BAD = {
    "no such folder": (["nowhere"], "nowhere: there is no such folder"),
    "no run": (["empty"], "empty: no config.yaml in it"),
    "a pilot": (["pilot"], "pilot: is a pilot's folder: name one of its arms, as pilot/arms/base-random-seed0"),
    "not begun": (["young"], "young: was stopped before it began"),
    "another trainer": (["empty", "--to", "tlr"], "--to tlr: unknown; did you mean 'trl'?"),
    "folder in use": (["run", "--out", "pilot"], "--out pilot: exists and is not empty"),
    "rules by label": (["told"], "motivation with label_fraction cannot be graduated"),
}


@pytest.mark.parametrize("arguments, says", BAD.values(), ids=BAD)
def test_bad_input_is_exit_2_and_one_line(arguments, says, ran, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for name in ("empty", "young", "pilot/arms/base-random-seed0"):
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "young" / "config.yaml").write_text("reward: {random: 1.0}\n")
    (tmp_path / "pilot" / "config.yaml").write_text("arms:\n- {model: base, reward: {random: 1.0}}\n")
    if arguments[0] in ("run", "told"):
        rules = ["motivation.condition=full", "reward={verifiable: 1.0}", "label_fraction=0.5"]
        ran(arguments[0], "train.steps=1", *(rules if arguments[0] == "told" else []))
    capsys.readouterr()
    monkeypatch.setattr(sys, "argv", ["poc", "graduate", *arguments])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    error = capsys.readouterr().err
    assert stopped.value.code == 2 and says in error and error.count("\n") == 1
    assert not (tmp_path / "runs").exists()


# ---- TRL itself


@pytest.fixture(scope="module")
def lab_folder(tmp_path_factory):
    """A graduated run of lab:base with a KL term, a label-free and a verifiable reward."""
    if importlib.util.find_spec("trl") is None:
        pytest.skip("trl is not installed: pip install trl==1.16.0")
    place = tmp_path_factory.mktemp("lab")
    overrides = ["train.steps=2", "train.max_new_tokens=24", "train.kl=0.1", "train.learning_rate=1e-3"]
    run([job(place / "run", "lab:base", [*overrides, "reward={self_certainty: 1.0, verifiable: 0.5}"])])
    graduate(place / "run", "trl", place / "out")
    return place / "out"


def _python(*arguments: str) -> str:
    """What a new process prints; it fails with its errors."""
    paths = {"PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'kernels'}", "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, *arguments], env=os.environ | paths, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


def test_the_script_takes_steps(lab_folder):
    _python(str(lab_folder / "train_trl.py"))
    before, after = (load_file(lab_folder / name / "adapter_model.safetensors") for name in ("adapter", "output"))
    assert before.keys() == after.keys() and any((before[key] != after[key]).any() for key in before)
    state = json.loads((lab_folder / "output" / "checkpoint-2" / "trainer_state.json").read_text())
    steps = [entry for entry in state["log_history"] if "raw/verifiable" in entry]
    assert len(steps) == 2 and all(0 <= entry["raw/verifiable"] <= 1 for entry in steps)
    assert all(entry["raw/self_certainty"] > 1 and entry["grad_norm"] > 0 and entry["kl"] > 0 for entry in steps)
    _python(str(lab_folder / "merge.py"))  # for poc evaluate
    options = dict(lora_rank=2, lora_alpha=32.0, quantization="none", device="cpu")
    merged = load_policy(str(lab_folder / "merged"), **options)
    whole = load_policy("lab:base", adapter=lab_folder / "output", **options)
    ids = torch.tensor([merged.tokenizer("85+65=?\n")["input_ids"]])
    torch.testing.assert_close(merged.model(ids).logits, whole.model(ids).logits, atol=1e-3, rtol=1e-3)
    with whole.adapter_off():
        assert (merged.model(ids).logits - whole.model(ids).logits).abs().max() > 0.01


@pytest.mark.parametrize("at_once", [8, 2])
def test_its_first_step_is_the_kits(at_once, lab_folder):
    """The same completions give the same loss, gradient and weights, whatever is trained on at once."""
    path = lab_folder / "grpo_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"per_device_train_batch_size": at_once}))
    found = json.loads(_python(__file__, str(lab_folder)).splitlines()[-1])
    assert found["theirs"] == pytest.approx(found["ours"], abs=2e-4)  # TRL logs four digits
    assert found["apart"] < 1e-3 * found["moved"] and found["moved"] > 0


def _first_step(folder: Path) -> dict:
    """Loss, gradient norm and KL of one step, TRL's and the kit's; how far the weights moved and lie apart."""
    from poc.update import gradients, take_step

    script, kept = _script(folder), {}
    script.KitRewards = partial(_keeping, kept, "kit", KitRewards)
    script.GRPOTrainer = partial(_keeping, kept, "trainer", script.GRPOTrainer)
    script.main()
    kit, log = kept["kit"], kept["trainer"].state.log_history[0]
    policy, config = kit.groups.policy, kit.config
    theirs = [parameter.detach().clone() for parameter in policy.trainable()]
    policy.load_adapter(folder / "adapter")
    start = [parameter.detach().clone() for parameter in policy.model.eval() and policy.trainable()]
    advantage = score(kit.step + 1, kit.seen[1], rewards.select(config), config, False).advantage
    optimizer = torch.optim.AdamW(policy.trainable(), lr=config.train.learning_rate, weight_decay=0.0)
    ours = gradients(policy, optimizer, kit.seen[1], advantage, config.train, config.train.micro_batch)
    take_step(policy, optimizer)
    return {
        "theirs": [log["loss"], log["grad_norm"], log["kl"]], "ours": [ours.loss, ours.grad_norm, ours.kl],
        "moved": _distance(start, policy.trainable()), "apart": _distance(theirs, policy.trainable()),
    }  # fmt: skip


def _script(folder: Path):
    sys.argv = ["train_trl.py", "--steps", "1"]
    spec = importlib.util.spec_from_file_location("train_trl", folder / "train_trl.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def _keeping(kept: dict, name: str, kind, *arguments, **options):
    kept[name] = kind(*arguments, **options)
    return kept[name]


def _distance(a, b) -> float:
    return sum((x.detach() - y.detach()).square().sum().item() for x, y in zip(a, b, strict=True)) ** 0.5


if __name__ == "__main__":
    print(json.dumps(_first_step(Path(sys.argv[1]))))
