"""Solver and verifier of a real policy: measurements by hand, the model's own scores, and the self-improvement loop."""

import json
import math
from dataclasses import replace

import pytest
import torch

from poc import pilot
from poc.config import RunConfig
from poc.configfile import load
from poc.display import Watch
from poc.gap import external, selfscore
from poc.gap.curves import read
from poc.gap.measure import choose, chosen, measure, question, uncertainty
from poc.improve import batches, lesson, together
from poc.pilot import Job
from poc.records import Episode, Example, Group, InputError, Verdict
from poc.resume import left
from poc.rollout import sample
from poc.update import UpdateRecord, gradients, likelihood_share, new_optimizer
from tests.poc.runs import essence, sha256

SMALL = [
    "data.train=16", "data.holdout=6", "data.canary=2", "train.prompts_per_step=4", "train.group_size=4",
    "train.max_new_tokens=6", "evaluate.samples=2", "lora.rank=2", "train.steps=3", "train.learning_rate=0.01",
    "gap.questions=5", "gap.candidates=4", "improve.batch=2",
]  # fmt: skip


def job(folder, model, overrides=()) -> Job:
    config = load(RunConfig, "improve", [f"model={model}", *SMALL, *overrides])
    return Job(folder, folder.name, None, pilot.resolve(config))


def run(jobs, stop_after=None) -> str:
    watch = Watch(sum(j.config.train.steps for j in jobs), live=False)
    asked = lambda: stop_after is not None and watch.done >= stop_after  # noqa: E731
    return pilot.run(jobs, pilot.prepare(jobs), watch, asked, kind="improve")


def episode(logp, right=False):
    n = len(logp)
    verdict = Verdict("correct" if right else "wrong", True, right)
    return Episode((1,) * n, "x", True, tuple(logp), (0.0,) * n, (0.0,) * n, verdict)


GROUP = Group(
    Example("q", "?", "1", "math"), (1, 2),
    (episode([-1.0, -1.0]), episode([-0.5], right=True), episode([-0.2, -0.2, -0.2, -2.0], right=True)),
)  # U: 2, 0.5, 2.6; a token: 1, 0.5, 0.65  # fmt: skip


def test_best_of_n_is_the_least_uncertain_token_among_those_that_pass():
    assert [uncertainty(e) for e in GROUP.episodes] == pytest.approx([2, 0.5, 2.6])
    assert choose(GROUP, [1, 1, 1], 0.5) == 1
    assert choose(GROUP, [0.9, 0.4, 0.6], 0.5) == 2  # by length: 0.65 a token against 1
    assert choose(GROUP, [0.2, 0.1, 0.3], 0.5) == 2  # nobody passes: the highest score
    assert choose(GROUP, [0.3, 0.1, 0.3], 0.5) == 2


def test_a_question_by_hand():
    config = load(RunConfig, None, []).gap
    row = question(GROUP, [0.9, 0.4, 0.6], config)
    assert row["solver"] == pytest.approx((2 + 0.5 + 2.6) / 3) and row["verifier"] == pytest.approx(2.6)
    assert row["gap"] == pytest.approx(row["solver"] - row["verifier"])
    assert row["solver_nll"] == pytest.approx((1 + 0.5 + 0.65) / 3) and row["verifier_nll"] == pytest.approx(0.65)
    assert (row["solver_length"], row["verifier_length"]) == pytest.approx((7 / 3, 4))
    assert (row["solver_accuracy"], row["verifier_accuracy"], row["oracle_accuracy"]) == pytest.approx((2 / 3, 1, 1))
    assert (row["passed"], row["unverified"]) == pytest.approx((2 / 3, 0))
    blind = replace(GROUP, example=replace(GROUP.example, answer=None))
    assert question(blind, [1, 1, 1], config)["oracle_accuracy"] is None


@pytest.fixture
def staged(tmp_path, tiny_folder, tiny_policy):
    made = job(tmp_path / "run", tiny_folder)
    return made.config, tiny_policy, pilot.prepare([made]).of(made), pilot.prompt_encoder(made, tiny_policy)[0]


def test_measurements_are_of_the_policy_alone(staged):
    """Two measurements of one policy are equal; uncertainty is the drawn tokens' -logp."""
    config, policy, data, encode = staged
    some = data["holdout"][:5]
    one, two = (measure(policy, some, config, step=0, encode=encode) for _ in range(2))
    assert one["summary"] == two["summary"] and one["questions"] == two["questions"]
    assert [row["id"] for row in one["questions"]] == [e.id for e in some]
    rows = one["questions"]
    assert one["summary"]["solver"]["value"] == pytest.approx(sum(r["solver"] for r in rows) / 5)
    assert one["verifier"] == "none"  # the toy spells
    drawn = sample(policy, [encode(e) for e in some], 4, max_new_tokens=6, temperature=1.0, seed=20_250_701)
    u = [-sum(e.logp) for e in drawn[2]]
    assert rows[2]["solver"] == pytest.approx(sum(u) / 4)
    assert rows[2]["verifier"] == pytest.approx(min(u, key=lambda x: x / len(drawn[2][u.index(x)])))


def test_the_model_scores_its_own_candidates(staged):
    """Letters stand in for the words that the toy cannot say; the truth is the full softmax in float64."""
    config, policy, data, encode = staged
    policy = replace(policy, prompt_format="bare")
    ids = {"True": [10], "False": [20, 21]} | {d: [30 + i] for i, d in enumerate(selfscore.DIGITS)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(selfscore, "word_ids", lambda policy, word: ids[word])
        drawn = sample(policy, [[5, 6]], 3, max_new_tokens=4, temperature=1.0, seed=0)[0]
        group = Group(data["holdout"][0], (5, 6), tuple(drawn))
        for kind in ("true_false", "quality"):
            (found,) = selfscore.scorer(policy, kind, batch_size=2)([group])
            for score, e in zip(found, drawn, strict=True):
                text = selfscore._asked(group.example.text, e.text, kind, policy.tokenizer)
                asked = torch.tensor([selfscore.render(text, policy.tokenizer, "plain", selfscore.INSTRUCTION)])
                with torch.no_grad():
                    p = policy.model(asked).logits[0, -1].double().softmax(-1)
                if kind == "true_false":
                    truth = p[10] / (p[10] + p[20] + p[21])
                else:
                    marks = torch.tensor([p[30 + i] for i in range(10)])
                    truth = (marks * torch.arange(10)).sum() / marks.sum() / 9
                assert score == pytest.approx(truth.item(), abs=1e-5)
        assert len(set(found)) > 1


def test_who_cannot_be_asked(tiny_policy):
    assert selfscore.decide("auto", tiny_policy) == "none" and selfscore.decide("none", tiny_policy) == "none"
    assert selfscore.decide("quality", tiny_policy) == "quality"  # it has digits
    with pytest.raises(InputError, match="gap.verifier: true_false.*no single token for True"):
        selfscore.decide("true_false", tiny_policy)


def test_a_way_of_asking_that_cannot_be_answered_is_refused_before_anything_is_written(tmp_path, tiny_folder):
    folder = tmp_path / "run"
    with pytest.raises(InputError, match="no single token for True: set gap.verifier to none"):
        run([job(folder, tiny_folder, ["gap.verifier=true_false"])])
    assert not folder.exists()


def test_lessons_leave_out_what_nobody_vouches_for():
    config = load(RunConfig, "improve", ["improve.batch=2"])
    groups = [replace(GROUP, example=replace(GROUP.example, id=str(i))) for i in range(5)]
    scores = [[0.9, 0.4, 0.6]] * 3 + [[0.1, 0.2, 0.3]] + [[0, 1, 0]]
    taught = lesson(groups, scores, config)
    assert [g.example.id for g in taught] == ["0", "1", "2", "4"]
    assert [len(g.episodes) for g in taught] == [1] * 4 and taught[3].episodes == (GROUP.episodes[1],)
    some = batches(taught, 1, config)
    assert [len(b) for b in some] == [2, 2] and {g.example.id for b in some for g in b} == {"0", "1", "2", "4"}
    assert batches(taught, 1, config) == some and len({str(batches(taught, r, config)) for r in range(6)}) > 1
    assert together([]) is None
    assert together([UpdateRecord(1.0, 2.0, 0, 0), UpdateRecord(3.0, 6.0, 0, 0)]) == UpdateRecord(2.0, 4.0, 0, 0)


def test_fine_tuning_is_maximum_likelihood(staged):
    """Loss and gradient of -sum logp, against plain autograd; what the sampler recorded plays no part."""
    config, policy, _, _ = staged
    train = config.train.model_copy(update={"max_grad_norm": 1e9})
    for parameter in policy.trainable():
        parameter.data += 0.05 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1))
    drawn = sample(policy, [[5, 6, 7], [8, 9]], 1, max_new_tokens=6, temperature=1.0, seed=0)
    unknown = [[replace(e, logp=(math.nan,) * len(e)) for e in some] for some in drawn]
    groups = [
        Group(Example("q", "?", None, "math"), p, tuple(e)) for p, e in zip([(5, 6, 7), (8, 9)], unknown, strict=True)
    ]
    record = gradients(
        policy, new_optimizer(policy, config.train), groups, torch.ones(2, 1), train, 8, likelihood_share
    )
    ours = [p.grad.clone() for p in policy.trainable()]
    tokens, loss = sum(len(e) for (e,) in drawn), 0.0
    for group, (e,) in zip(groups, drawn, strict=True):
        ids = torch.tensor([[*group.prompt_ids, *e.token_ids]])
        logp = policy.model(ids).logits[0].log_softmax(-1)
        start = len(group.prompt_ids) - 1
        loss = loss - logp[torch.arange(start, start + len(e)), torch.tensor(e.token_ids)].sum() / tokens
    theirs = torch.autograd.grad(loss, policy.trainable())
    assert record.loss == pytest.approx(loss.item(), rel=1e-5)
    for a, b in zip(ours, theirs, strict=True):
        assert torch.allclose(a, b, rtol=1e-3, atol=1e-6)


def test_rounds_make_the_model_surer_and_are_written_down(tmp_path, tiny_folder):
    folder = tmp_path / "run"
    assert run([job(folder, tiny_folder, ["train.steps=5"])]) == "done"
    (curves,) = read(folder)
    assert curves.times == [0, 1, 2, 3, 4, 5] and curves.unit == "round" and curves.pace > 0
    assert curves.values("verifier")[-1] < curves.values("verifier")[0]
    assert curves.values("solver_nll")[-1] < curves.values("solver_nll")[0]
    lines = [json.loads(line) for line in (folder / "steps.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5] and all(line["loss"] > 0 for line in lines)
    assert json.loads((folder / "environment.json").read_text())["kind"] == "improve"
    from poc.audit_check import verify_run
    from poc.report import write

    assert verify_run(folder, []).ok
    page = write([folder], tmp_path / "page.html").read_text()
    assert "solver and verifier" in page and "own choices" in page and page.count("<svg") >= 4


def test_an_interrupted_run_goes_on_exactly(tmp_path, tiny_folder):
    straight, cut = tmp_path / "straight" / "run", tmp_path / "cut" / "run"
    assert run([job(straight, tiny_folder)]) == "done"
    assert run([job(cut, tiny_folder)], stop_after=2) == "interrupted"
    found = left(cut)
    assert found.kind == "improve"
    assert run(found.jobs) == "done"
    a, b = essence(straight), essence(cut)
    assert {k: v for k, v in a.items() if k != "evaluations"} == {k: v for k, v in b.items() if k != "evaluations"}
    for path in sorted(straight.glob("evaluations/gap/*.json")):
        mine, theirs = (json.loads(p.read_text()) for p in (path, cut / "evaluations" / "gap" / path.name))
        assert mine["questions"] == theirs["questions"]


def test_a_run_of_rewards_gets_the_same_curves(tmp_path, tiny_folder):
    """And they change nothing of it: weights are equal with and without."""
    config = ["reward={self_certainty: 1.0}", "evaluate.every=1", "train.steps=2"]
    with_, without = tmp_path / "with" / "run", tmp_path / "without" / "run"
    for folder, more in ((with_, []), (without, ["gap.every=null"])):
        made = job(folder, tiny_folder, [*config, *more])
        watch = Watch(2, live=False)
        assert pilot.run([made], pilot.prepare([made]), watch, lambda: False) == "done"
    (curves,) = read(with_)
    assert curves.unit == "step" and curves.times == [0, 1, 2]
    assert not list(without.glob("evaluations/gap"))
    last = "checkpoints/step-000002/adapter_model.safetensors"
    assert sha256(with_ / last) == sha256(without / last)


def test_measured_every_other_time_and_at_the_end(tmp_path, tiny_folder):
    made = job(tmp_path / "run", tiny_folder, ["gap.every=2"])
    assert run([made]) == "done"
    assert read(tmp_path / "run")[0].times == [0, 2, 3]
    with pytest.raises(InputError, match="no multiple of evaluate.every"):
        load(RunConfig, None, ["evaluate.every=5", "gap.every=7"])


def test_external_answers_from_a_file(tmp_path, tiny_folder, tiny_policy, staged):
    config, policy, data, encode = staged
    file = tmp_path / "answers.jsonl"
    rows = [{"prompt": e.text, "completion": "42"} for e in data["train"][:6]]
    rows.append({"prompt": data["train"][7].text, "completion": "far too long for this"})
    file.write_text("\n".join(map(json.dumps, rows)))
    told = load(RunConfig, "improve", [f"improve.external={{answers: {file}, count: 6}}"]).improve.external
    found = external.answers(told, policy, data["train"], encode, config)
    assert len(found) == 6 and {g.episodes[0].text for g in found} == {"42"}
    ids = found[0].episodes[0].token_ids
    assert policy.tokenizer.decode(ids[:-1]) == "42" and ids[-1] in policy.stop_ids
    again = external.answers(told, policy, data["train"], encode, config)
    assert [g.example.id for g in again] == [g.example.id for g in found]
    with pytest.raises(InputError, match="6 of the training questions have an answer.*count is 7"):
        external.answers(told.model_copy(update={"count": 7}), policy, data["train"], encode, config)
    file.write_text('{"prompt": "no such question", "completion": "1"}')
    with pytest.raises(InputError, match="answers no training question: its prompts must be their texts"):
        external.answers(told.model_copy(update={"count": 1}), policy, data["train"], encode, config)


@pytest.mark.parametrize("text, count, said", [
    ('{"prompt": "a"}', 1, "line 1.*neither empty"), ('[1]', 1, "line 1"), ("null", 1, "line 1"),
    ('{"prompt": "a", "completion": " "}', 1, "neither empty"), ("", 1, "has 0 answers, count is 1"),
    ('{"prompt": "a", "completion": "b"}', 17, "count = 17: there are 16 training questions"),
])  # fmt: skip
def test_external_answers_that_cannot_be_used_are_refused_before_a_model_loads(tmp_path, text, count, said):
    file = tmp_path / "answers.jsonl"
    file.write_text(text)
    options = [f"improve.external={{answers: {file}, count: {count}}}", "data.train=16"]
    with pytest.raises(InputError, match=said):
        external.check(load(RunConfig, "improve", options))
    with pytest.raises(InputError, match="improve.external.answers: .*lab:nonsense"):
        external.check(load(RunConfig, "improve", ["improve.external={answers: 'lab:nonsense', count: 1}"]))


def test_external_answers_change_the_round_in_which_they_are_spent(tmp_path, tiny_folder):
    """Early and late are equal to the run without until their round, and not after it."""
    adapters = {}
    for name in ("none", "early", "late"):
        more = [] if name == "none" else [f"improve.external={{answers: {tiny_folder}, count: 3, when: {name}}}"]
        folder = tmp_path / name / "run"
        assert run([job(folder, tiny_folder, ["train.max_new_tokens=40", *more])]) == "done"
        lines = [json.loads(line) for line in (folder / "steps.jsonl").read_text().splitlines()]
        adapters[name] = [line["entropy"] for line in lines]  # of what was drawn in rounds 1, 2, 3
    assert adapters["early"][0] == adapters["none"][0] and adapters["early"][1] != adapters["none"][1]
    assert adapters["late"] == adapters["none"]  # spent in round 3, which is drawn before


def test_rounds_draw_their_own_candidates(tmp_path):
    config = load(RunConfig, "improve", ["train.inner_epochs=2"])
    with pytest.raises(InputError, match="leave both at 1"):
        external.check(config)


def test_a_round_cannot_be_skipped():
    with pytest.raises(InputError, match="nonfinite.*set stop"):
        external.check(load(RunConfig, "improve", ["train.nonfinite=skip"]))


def test_chosen_groups_have_one_episode():
    (found,) = chosen([GROUP], [[1, 1, 1]], 0.5)
    assert found.episodes == (GROUP.episodes[1],) and found.example == GROUP.example
