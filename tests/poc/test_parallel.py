"""Two processes on one run (gloo, CPU) do what one does: same completions and evaluations, same weights up to rounding.

One test goes through `accelerate launch`; the others fork two children with the environment that launchers set.
"""

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from datetime import datetime
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

import poc.session
import poc.trainer
import poc.update
from poc import checkpoint, cli, guard, parallel, rewards
from poc.audit_check import verify_run
from poc.guard import Decision
from poc.parallel import World
from poc.records import InputError
from tests.poc.runs import SMALL, job, resume, run

RATE = 0.001
OPTIONS = [
    *SMALL, f"train.learning_rate={RATE}", "train.steps=3", "train.prompts_per_step=4", "train.kl=0.1",
    "data.canary=3", "evaluate.every=2", "guard.action=warn", "train.checkpoint_every=1",
    "reward={self_certainty: 1.0, random: 1.0}",
]  # fmt: skip
ODD = [
    *OPTIONS, "train.prompts_per_step=3", "train.rollout_reuse=3", "train.steps=4", "data.holdout=5", "train.kl=0.0",
    "reward={random: 1.0}",
]  # fmt: skip
RELATIVE = 1e-5  # sums in another order, in float32
KL = 1e-4  # a sum of squares of small differences of log-probabilities, which are rounded
LOSS = 1e-6  # absolute, for the loss: it is what is left of advantages of about 1 that cancel
MOVED = 1e-3 * RATE  # of a weight; Adam makes a whole learning rate of a gradient's sign, be the gradient rounding only
LIMIT = 100  # seconds, after which a process is said to hang
UNLIKE = ("timing", "seconds", "low", "high")  # the ends of intervals jump where resamples tie with the mean


def arguments(folder: Path, model: Path, overrides) -> list[str]:
    chosen = [part for option in (f"model={model}", *overrides) for part in ("--set", option)]
    return ["train", "--out", str(folder), *chosen]


def together(words: list[str], prepare=lambda rank: None) -> tuple[list[int], list[str]]:
    """Exit codes and output of two children that run `poc ...` on one run; `prepare(rank)` is called in each first."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    pipes = [os.pipe() for _ in range(2)]
    children = [_child(rank, port, words, pipes[rank][1], prepare) for rank in range(2)]
    [os.close(write) for _, write in pipes]
    return _codes(children), [os.fdopen(read).read() for read, _ in pipes]


def _child(rank: int, port: int, words: list[str], said: int, prepare) -> int:
    if child := os.fork():
        return child
    code = 1
    try:
        os.setsid()
        os.dup2(said, 1), os.dup2(said, 2)
        sys.stdout, sys.stderr = (os.fdopen(n, "w", buffering=1) for n in (1, 2))
        place = dict(RANK=rank, LOCAL_RANK=rank, WORLD_SIZE=2, MASTER_ADDR="127.0.0.1", MASTER_PORT=port)
        os.environ.update({name: str(value) for name, value in place.items()})
        parallel.the_world.cache_clear()
        prepare(rank)
        sys.argv, code = ["poc", *words], 0
        cli.main()
    except SystemExit as end:
        code = end.code
    except BaseException:
        code = 70
        raise
    finally:
        os._exit(code)


def _codes(children: list[int]) -> list[int]:
    found, until = {}, time.monotonic() + LIMIT
    while len(found) < len(children):
        for child in children:
            if child not in found and (ended := os.waitpid(child, os.WNOHANG))[0]:
                found[child] = os.waitstatus_to_exitcode(ended[1])
        if time.monotonic() > until:
            [os.kill(child, signal.SIGKILL) for child in children if child not in found]
            pytest.fail("a process hangs")
        time.sleep(0.02)
    return [found[child] for child in children]


def assert_alike(folder: Path, straight: Path, but=()) -> None:
    """Same completions, same numbers up to rounding, same weights; `but`: keys that may differ."""
    for name in ("steps.jsonl", "samples.jsonl"):
        ours, theirs = ((path / name).read_text().splitlines() for path in (folder, straight))
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            _same(json.loads(one), json.loads(other), name, but)
    for path in straight.glob("evaluations/**/*.json"):
        ours = folder / path.relative_to(straight)
        _same(json.loads(ours.read_text()), json.loads(path.read_text()), path.name)
    last = max(straight.glob("checkpoints/step-*")).name
    ours, theirs, start = (
        load_file(path / "checkpoints" / step / "adapter_model.safetensors")
        for path, step in ((folder, last), (straight, last), (straight, "step-000000"))
    )
    assert max((theirs[name] - start[name]).abs().max() for name in start) > RATE  # or equality says nothing
    assert max((ours[name] - theirs[name]).abs().max() for name in start) < MOVED
    assert verify_run(folder).ok


def _same(one, other, where: str, but=()) -> None:
    if isinstance(one, dict):
        assert one.keys() == other.keys()
        [_same(one[key], other[key], f"{where} {key}") for key in one if key not in (*UNLIKE, *but)]
    elif isinstance(one, list):
        assert len(one) == len(other)
        [_same(a, b, where) for a, b in zip(one, other, strict=True)]
    elif isinstance(one, float):
        relative = KL if where.endswith(" kl") else RELATIVE
        assert one == pytest.approx(other, rel=relative, abs=LOSS if where.endswith(" loss") else 1e-9), where
    else:
        assert one == other, where


def two_arms(folder: Path, model: Path, *mixes: str) -> list[str]:
    """The command of a pilot with these rewards."""
    arms = ", ".join(f"{{model: base, reward: {{{mix}}}}}" for mix in mixes)
    small = [option for option in OPTIONS if not option.startswith("reward")]
    _, *words = arguments(folder, model, [*small, f"arms=[{arms}]"])
    return ["pilot", *(word.replace("model=", "models.base=") for word in words)]


def raising(group):
    raise KeyError("x")


@pytest.fixture(scope="module")
def straight(tmp_path_factory, tiny_folder):
    """The run of one process."""
    folder = tmp_path_factory.mktemp("straight") / "run"
    assert run([job(folder, tiny_folder, OPTIONS)]) == "done"
    return folder


def test_accelerate_launch_does_what_one_process_does(tmp_path, tiny_folder, straight):
    launch = [
        Path(sys.executable).with_name("accelerate"), "launch", "--multi_gpu", "--num_processes=2", "--num_machines=1",
        "--mixed_precision=no", "--dynamo_backend=no", "--main_process_port=0", "--module", "poc",
    ]  # fmt: skip
    told = subprocess.run(
        [*launch, *arguments(tmp_path / "run", tiny_folder, OPTIONS)], capture_output=True, text=True, timeout=LIMIT
    )
    assert told.returncode == 0, told.stderr
    assert told.stdout.count("step 3/3") == told.stdout.count("done: report in") == 1  # one process speaks
    assert_alike(tmp_path / "run", straight)
    assert json.loads((tmp_path / "run" / "environment.json").read_text())["hardware"]["processes"] == 2


def test_prompts_that_cannot_be_halved(tmp_path, tiny_folder, monkeypatch):
    """9 in a rollout, 3 in a step, 5 and 3 to measure; token for token, and both processes have the same weights.

    In step 2 the second process has nothing to learn: its one group has equal rewards.
    """

    def prepare(rank) -> None:
        real, drawn = poc.session.rollout, []
        random, asked, understand, understood = rewards.REWARDS["random"], [], poc.trainer.with_meanings, []

        def some(group):
            asked.append(group)
            return random(group) if len(asked) != 6 else [1.0] * len(group.episodes)

        def with_meanings(*given):
            understood.append(given)
            (tmp_path / f"understood-{rank}").write_text(str(len(understood)))
            return understand(*given)

        def rollout(*given, **options):
            groups = real(*given, **options)
            drawn.append([[g.example.id, [e.token_ids for e in g.episodes]] for g in groups])
            (tmp_path / f"tokens-{rank}").write_text(json.dumps(drawn))
            return groups

        def ending(session, state):
            torch.save([p.data for p in session.policy.trainable()], tmp_path / f"weights-{rank}")
            return real_ending(session, state)

        real_ending = poc.session.Session.ending
        monkeypatch.setitem(rewards.REWARDS, "random", some)
        monkeypatch.setattr(poc.trainer, "with_meanings", with_meanings)
        monkeypatch.setattr(poc.session, "rollout", rollout)
        monkeypatch.setattr(poc.session.Session, "ending", ending)

    with monkeypatch.context():
        prepare("alone")
        assert run([job(tmp_path / "alone" / "run", tiny_folder, ODD)]) == "done"
        monkeypatch.undo()
    assert together(arguments(tmp_path / "run", tiny_folder, ODD), prepare)[0] == [0, 0]
    assert_alike(tmp_path / "run", tmp_path / "alone" / "run")
    tokens = [(tmp_path / f"tokens-{rank}").read_text() for rank in ("alone", 0, 1)]
    assert tokens[0] == tokens[1] == tokens[2]
    one, other = (torch.load(tmp_path / f"weights-{rank}") for rank in (0, 1))
    assert all(torch.equal(a, b) for a, b in zip(one, other, strict=True))  # they never drift apart
    judged = [int((tmp_path / f"understood-{rank}").read_text()) for rank in ("alone", 0, 1)]
    assert judged == [18, 10, 8]  # each its share: a judge may look at the clock


def test_interrupted_two_go_on_as_one_and_one_as_two(tmp_path, tiny_folder, straight):
    """The signal comes in step 2, to process 1 only (not SIGINT: who runs tests in the background ignores that)."""

    def prepare(rank) -> None:
        real = poc.session.take_step

        def take_step(*given):
            real(*given)
            state = given[1].state[given[0].trainable()[0]]
            if rank == 1 and state["step"] == 2:
                os.kill(os.getpid(), signal.SIGTERM)

        poc.session.take_step = take_step

    folder = tmp_path / "two" / "run"
    codes, said = together(arguments(folder, tiny_folder, OPTIONS), prepare)
    assert codes == [130, 130] and "go on with: poc resume" in said[0] and said[1] == ""
    assert checkpoint.whole(folder / "checkpoints")[-1] == 2
    copy = shutil.copytree(folder, tmp_path / "both" / "run")
    assert resume(folder) == "done"
    assert together(["resume", str(copy)])[0] == [0, 0]
    for ended in (folder, copy):
        assert_alike(ended, straight)


def test_an_error_of_one_process_ends_both_and_is_told_once(tmp_path, tiny_folder, straight):
    def prepare(rank) -> None:
        real, asked = rewards.REWARDS["random"], []

        def random(group):
            asked.append(group)
            return raising(group) if rank == 1 and len(asked) > 8 else real(group)  # from step 3 on

        rewards.REWARDS["random"] = random

    folder = tmp_path / "run"
    codes, said = together(arguments(folder, tiny_folder, OPTIONS), prepare)
    assert codes == [1, 1]
    reason = json.loads((folder / "outcome.json").read_text())["reason"]
    assert reason.startswith("process 1: reward random of math-") and "raises KeyError" in reason
    assert said[0].count(reason) == 1 and said[1] == ""
    assert checkpoint.whole(folder / "checkpoints")[-1] == 2
    assert resume(folder) == "done"
    assert_alike(folder, straight)


def test_an_arm_that_fails_on_one_process_leaves_the_next_one_to_both(tmp_path, tiny_folder):
    def prepare(rank) -> None:
        if rank == 1:
            rewards.REWARDS["random"] = raising

    words = two_arms(tmp_path / "pilot", tiny_folder, "random: 1.0", "self_certainty: 1.0")
    codes, said = together([*words, "--set", "train.steps=1"], prepare)
    assert codes == [1, 1] and "base-random-seed0 failed: process 1: reward random" in said[0], said
    outcomes = [json.loads(path.read_text())["status"] for path in sorted(tmp_path.glob("pilot/arms/*/outcome.json"))]
    assert outcomes == ["failed", "done"]
    assert resume(tmp_path / "pilot") == "done"


def test_too_little_memory_on_one_process_halves_it_on_both(tmp_path, tiny_folder, straight):
    def prepare(rank) -> None:
        real = poc.update._loss

        def loss(policy, batch, *given):
            if rank == 1 and batch.segments.max(-1).values.sum() > 4:
                raise torch.OutOfMemoryError("CUDA out of memory")
            return real(policy, batch, *given)

        poc.update._loss = loss

    folder = tmp_path / "run"
    codes, said = together(arguments(folder, tiny_folder, OPTIONS), prepare)
    assert codes == [0, 0] and "out of memory in update, 4 rows at once now" in said[0]
    assert said[0].count("out of memory") == 1  # from the 8 of its share, not from 16
    steps = [json.loads(line) for line in (folder / "steps.jsonl").read_text().splitlines()]
    assert [step["micro_batch"] for step in steps] == [4, 4, 4]
    assert_alike(folder, straight, but=("micro_batch",))


def test_going_back_goes_back_on_both(tmp_path, tiny_folder):
    """In a folder whose name is made of the time, which is another one for process 1."""

    def prepare(rank) -> None:
        os.chdir(tmp_path)
        cli.datetime = type("Clock", (), {"now": lambda: datetime(2000 + rank, 1, 1)})
        decision = Decision("past_peak", "rollback", 2, "made up", {"value": 1.0})
        guard.after_step = lambda memory, record, options: (memory, (decision,) if record.step == 2 else ())
        guard.best_step = lambda memory, options, labels: 0

    _, _, _, *chosen = arguments(tmp_path, tiny_folder, [*OPTIONS, "guard.action=rollback"])
    codes, said = together(["train", *chosen], prepare)
    (folder,) = (tmp_path / "runs").iterdir()
    assert codes == [3, 3] and folder.name == "train-20000101-000000", said
    assert json.loads((folder / "outcome.json").read_text())["kept"] == 0
    for again, then in (("kept", ""), ("kept-canary", "canary")):
        one, other = (
            json.loads((folder / "evaluations" / view / "step-000000.json").read_text()) for view in (again, then)
        )
        assert one["prompts"] == other["prompts"]
    assert verify_run(folder).ok


def test_a_process_that_is_killed_ends_the_other(tmp_path, tiny_folder):
    def prepare(rank) -> None:
        real, steps = poc.session.take_step, []

        def take_step(*given):
            steps.append(1)
            if rank == 1 and len(steps) == 2:
                os.kill(os.getpid(), signal.SIGKILL)
            real(*given)

        poc.session.take_step = take_step

    words = two_arms(tmp_path / "pilot", tiny_folder, "self_certainty: 1.0, random: 1.0", "random: 1.0")
    codes, said = together(words, prepare)
    assert codes == [1, -signal.SIGKILL] and "process 0 cannot reach another one, which has ended" in said[0]
    (begun,) = (tmp_path / "pilot" / "arms").iterdir()  # the second arm was not
    assert verify_run(begun).ok and resume(tmp_path / "pilot") == "done"


@pytest.mark.parametrize("words, told", [
    (["doctor"], "poc: poc doctor runs in one process"), (["train", "--set", "train.steps=x"], "poc: config defaults"),
])  # fmt: skip
def test_what_is_refused_is_refused_once(words, told):
    codes, said = together(words)
    assert codes == [2, 2] and said[0].startswith(told) and said[0].count("\n") == 1 and said[1] == ""


def test_half_a_launch_is_refused(monkeypatch):
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(InputError, match="RANK='' in the environment is no number"):
        parallel.the_world.__wrapped__()
    monkeypatch.setenv("RANK", "0")
    with pytest.raises(InputError, match="MASTER_ADDR or MASTER_PORT is not set"):
        parallel.the_world.__wrapped__()


@pytest.mark.parametrize("count", range(8))
@pytest.mark.parametrize("size", range(1, 6))
def test_parts_are_all_of_it_in_order_and_nearly_equal(count, size):
    parts = World(0, size).parts(count)
    lengths = [part.stop - part.start for part in parts]
    assert [i for part in parts for i in range(count)[part]] == list(range(count))
    assert max(lengths) - min(lengths) <= 1 and max(lengths) == World(0, size).most(count)


def test_one_process_needs_no_distributed_torch():
    code = "import sys; from poc.parallel import the_world as w; w().map('x', abs, [1]); print('torch' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert told.stdout == "False\n", told.stderr
