"""Checkpoints: what is written comes back to the last bit, any damage is found, an interruption leaves the old."""

import dataclasses
import errno
import os
import shutil
from pathlib import Path

import pytest
import torch

from poc import checkpoint, durable, guard
from poc.checkpoint import Damaged, State
from poc.records import Episode, Example, Group, Verdict
from tests.poc.runs import essence, job, resume, run

HEAD = "3:" + "0" * 64
EPISODE = Episode(
    (5, 6), "a\u202e\x00", True, (-0.1, -2.5), (0.3, 1e-9), (1.0, 2.0), Verdict("wrong", True, False), "a"
)
GROUPS = (
    Group(Example("q1", "1 + 1", "2", "math", 1, "{}"), (1, 2, 3), (EPISODE, EPISODE), 7, (0, None)),
    Group(Example("q2", ({"role": "user", "content": "x"},), None, "own"), (4,), (EPISODE,), 2**61, (None,)),
)


@pytest.fixture
def trained(tiny_policy):
    """A policy and its optimizer after two steps, the second without a gradient for one parameter."""
    optimizer = torch.optim.AdamW(tiny_policy.trainable(), lr=0.01)
    generator = torch.Generator().manual_seed(1)
    for skipped in (0, 1):
        for parameter in tiny_policy.trainable()[skipped:]:
            parameter.grad = torch.randn(parameter.shape, generator=generator)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return tiny_policy, optimizer


def state(step: int = 4) -> State:
    return State(
        guard.start(True), {"update": 8, "rollout": 4}, {"update": 0, "rollout": 2}, step=step, evaluated=3,
        entropies=(0.1, None, 1 / 3), skipped=1, pending=GROUPS, account={"seconds": {"update": 0.5}},
    )  # fmt: skip


def test_everything_comes_back_to_the_last_bit(trained, tmp_path):
    policy, optimizer = trained
    checkpoint.save(tmp_path, state(), policy, optimizer, HEAD)
    folder = checkpoint.newest(tmp_path)
    weights = [p.detach().clone() for p in policy.trainable()]
    moments = checkpoint.optimizer_bytes(policy, optimizer)
    policy.reset_adapter(5)
    fresh = torch.optim.AdamW(policy.trainable(), lr=0.01)
    policy.load_adapter(folder)
    checkpoint.load_optimizer(folder, policy, fresh)
    assert all(torch.equal(a, b) for a, b in zip(weights, policy.trainable(), strict=True))
    assert checkpoint.optimizer_bytes(policy, fresh) == moments
    assert checkpoint.load_state(folder) == state()
    after = [stepped(policy, optim, weights) for optim in (optimizer, fresh)]
    assert all(torch.equal(a, b) for a, b in zip(*after, strict=True))  # and the next step is the same


def stepped(policy, optimizer, weights) -> list[torch.Tensor]:
    """The weights one step of gradient 1 further on."""
    for parameter, value in zip(policy.trainable(), weights, strict=True):
        parameter.data.copy_(value)
        parameter.grad = torch.ones_like(parameter)
    optimizer.step()
    return [p.detach().clone() for p in policy.trainable()]


def test_no_pickle_is_written(trained, tmp_path):
    checkpoint.save(tmp_path, state(), *trained, HEAD)
    names = {path.name for path in (tmp_path / "step-000004").iterdir()}
    assert names == {
        "adapter_model.safetensors", "adapter_config.json", "optimizer.safetensors", "state.json", "rollouts.json",
        "manifest.json",
    }  # fmt: skip
    assert not any(b"\x80\x04" == path.read_bytes()[:2] for path in (tmp_path / "step-000004").iterdir())


def test_one_flipped_bit_of_any_byte_is_found(trained, tmp_path):
    """Every byte of the small files, 400 of each large one."""
    checkpoint.save(tmp_path, state(), *trained, HEAD)
    folder, tried = tmp_path / "step-000004", 0
    for path in sorted(folder.iterdir()):
        content = path.read_bytes()
        for i in range(0, len(content), max(1, len(content) // 400)):
            path.write_bytes(content[:i] + bytes([content[i] ^ (1 << i % 8)]) + content[i + 1 :])
            with pytest.raises(Damaged):
                checkpoint.verify(folder)
            tried += 1
        path.write_bytes(content)
    assert tried > 2000 and checkpoint.verify(folder)["step"] == 4


CHANGES = {
    "cut off": lambda folder: os.truncate(folder / "optimizer.safetensors", 100),
    "empty": lambda folder: os.truncate(folder / "state.json", 0),
    "missing": lambda folder: (folder / "rollouts.json").unlink(),
    "no manifest": lambda folder: (folder / "manifest.json").unlink(),
    "manifest is no mapping": lambda folder: (folder / "manifest.json").write_text("[1]"),
    "manifest is deep": lambda folder: (folder / "manifest.json").write_text("[" * 100_000),
    "a stranger": lambda folder: (folder / "more.bin").write_bytes(b"x"),
    "of another step": lambda folder: folder.rename(folder.with_name("step-000009")),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_the_newest_whole_one_is_taken_and_the_damage_is_told(trained, tmp_path, change):
    for step in (4, 8):
        checkpoint.save(tmp_path, state(step), *trained, HEAD)
    change(tmp_path / "step-000008")
    told = []
    assert checkpoint.newest(tmp_path, told.append).name == "step-000004"
    assert len(told) == 1 and "is damaged" in told[0]
    assert checkpoint.whole(tmp_path) == [4]
    checkpoint.save(tmp_path, state(8), *trained, HEAD)  # the step is taken again
    assert checkpoint.newest(tmp_path, told.append).name == "step-000008" and len(told) == 1


def test_the_last_two_and_the_wanted_ones_stay(trained, tmp_path):
    for step in (0, 5, 10, 15, 20):
        checkpoint.save(tmp_path, state(step), *trained, HEAD)
    (tmp_path / ".staged-000025").mkdir()
    checkpoint.prune(tmp_path, [5])
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-000005", "step-000015", "step-000020"]


class Faults:
    """Makes the n-th call of one kind fail as a full or broken disk does: half of what was to be written is there."""

    KINDS = {
        "fsync": [(os, "fsync")],
        "rename": [(os, "rename"), (os, "replace")],
        "write": [(durable, "write_new"), (Path, "write_bytes")],
        "append": [(durable, "append_line"), (os, "write")],
    }

    def __init__(self, monkeypatch, kind: str, at: int | None) -> None:
        self.calls, self.at = 0, at
        for owner, name in self.KINDS[kind]:
            monkeypatch.setattr(owner, name, self.wrapped(getattr(owner, name), name))

    def wrapped(self, original, name):
        def call(*arguments, **options):
            self.calls += 1
            if self.calls - 1 != self.at:
                return original(*arguments, **options)
            if name in ("write_new", "write_bytes"):
                original(arguments[0], arguments[1][: len(arguments[1]) // 2])
            if name == "append_line":
                with arguments[0].open("ab") as file:
                    file.write(arguments[1][: len(arguments[1]) // 2])
            if name == "write":
                return original(arguments[0], arguments[1][: len(arguments[1]) // 2])  # a short write
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "somewhere")

        return call


SHORT = [
    "train.steps=4", "train.checkpoint_every=1", "evaluate.every=2", "train.rollout_reuse=2", "guard.action=warn",
    "reward={self_certainty: 1.0}",
]  # fmt: skip


@pytest.mark.parametrize("kind", Faults.KINDS)
def test_a_disk_that_fails_at_any_moment_loses_nothing(tmp_path, tiny_folder, kind, monkeypatch):
    """A run in which one call fails can be gone on with, and ends as if nothing had happened."""
    with monkeypatch.context() as patch:
        counted = Faults(patch, kind, None)
        assert run([job(tmp_path / "run", tiny_folder, SHORT)]) == "done"
    straight = essence(tmp_path / "run")
    places = range(1, counted.calls, max(1, counted.calls // 9))
    for at in places:
        folder = tmp_path / f"{at}" / "run"
        with monkeypatch.context() as patch, pytest.raises(OSError):
            Faults(patch, kind, at)
            run([job(folder, tiny_folder, SHORT)])
        whole = checkpoint.whole(folder / "checkpoints")
        if not (folder / "config.yaml").is_file():  # it failed before there was anything: begin anew
            shutil.rmtree(folder)
            run([job(folder, tiny_folder, SHORT)])
        else:
            assert resume(folder) == "done"
        assert essence(folder) == straight, (at, whole)
    assert len(places) >= 5


def test_a_state_knows_only_plain_data():
    """What asdict and JSON cannot hold would be lost silently."""
    kinds = {f.name: f.type for f in dataclasses.fields(State)}
    assert kinds["memory"] == guard.Memory and kinds["pending"] == tuple[Group, ...]
