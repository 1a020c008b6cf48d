"""SIGKILL at random moments of real runs, and Ctrl-C twice: the run goes on and ends as if nothing had happened.

POC_KILLS=100 python -m pytest tests/poc/test_kill.py is the long form (minutes); LOG.md has its figures.
"""

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from poc import checkpoint
from poc.audit_check import verify_run
from tests.poc.runs import SMALL, essence

KILLS = int(os.environ.get("POC_KILLS", "8"))
OPTIONS = [
    *SMALL, "train.checkpoint_every=1", "evaluate.every=3", "train.rollout_reuse=2", "guard.action=warn",
    "reward={semantic_entropy: 1.0, random: 1.0}",
]  # fmt: skip


def started(*arguments: str) -> int:
    """A child that runs `poc ...`, with the libraries already loaded; its process id."""
    child = os.fork()
    if child:
        return child
    from poc import cli

    os.setsid()
    nowhere = os.open(os.devnull, os.O_RDWR)
    for descriptor in range(3):
        os.dup2(nowhere, descriptor)
    sys.argv = ["poc", *arguments]
    code = 1
    try:
        cli.main()
        code = 0
    except SystemExit as end:
        code = end.code or 0
    finally:
        os._exit(code)


def train(folder: Path, model) -> list[str]:
    options = [part for option in (f"model={model}", *OPTIONS) for part in ("--set", option)]
    return ["train", "--out", str(folder), *options]


def finish(child: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_killed_at_random_moments_a_run_ends_as_the_straight_one(tmp_path, tiny_folder):
    assert finish(started(*train(tmp_path / "straight" / "run", tiny_folder))) == 0
    straight = essence(tmp_path / "straight" / "run")
    chance, kills, runs = random.Random(6), 0, 0
    while kills < KILLS:
        folder = tmp_path / f"{runs}" / "run"
        runs += 1
        child = started(*train(folder, tiny_folder))
        for _ in range(25):
            time.sleep(chance.uniform(0.05, 3.0))
            if os.waitpid(child, os.WNOHANG)[0]:
                break
            os.kill(child, signal.SIGKILL)
            finish(child)
            kills += 1
            if not (folder / "config.yaml").is_file():  # nothing was begun
                child = started(*train(tmp_path / f"{runs}" / "anew" / "run", tiny_folder))
                folder = tmp_path / f"{runs}" / "anew" / "run"
                continue
            assert verify_run(folder).ok if (folder / "audit.jsonl").is_file() else True
            child = started("resume", str(folder))
        else:
            assert finish(child) == 0
        assert essence(folder) == straight
        assert verify_run(folder).ok
    print(f"{kills} kills in {runs} runs, all ended as the straight one")


def test_a_second_ctrl_c_ends_within_two_seconds(tmp_path, tiny_folder):
    """Also while the interpreter is inside one long call that no signal ends: here, a decomposition that takes long."""
    code = (
        "import sys, time; from poc import cli, session; real = session.gradients\n"
        "def slow(*a, **k):\n"
        "    print('UPDATE', flush=True)\n"
        "    import torch; torch.linalg.svd(torch.randn(6000, 6000, generator=torch.Generator()))\n"
        "    return real(*a, **k)\n"
        "def first(*a, **k):\n"
        "    session.gradients = slow; return real(*a, **k)\n"
        "session.gradients = first; sys.argv = ['poc', *sys.argv[1:]]; cli.main()"
    )
    command = [sys.executable, "-c", code, *train(tmp_path / "run", tiny_folder)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        for line in process.stdout:
            if "UPDATE" in line:
                break
        process.send_signal(signal.SIGINT)
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        began = time.monotonic()
        assert process.wait(timeout=30) == 130
        assert time.monotonic() - began < 5  # two seconds promised; the rest is a loaded machine's
    assert checkpoint.whole(tmp_path / "run" / "checkpoints") == [0, 1]
    assert finish(started("resume", str(tmp_path / "run"))) == 0
