"""For notebooks: a start model, and a command of the kit without its lines of progress, its arms as the result.

The run folder and its page are those of the command line, and so are checks and the guard. Importing it silences what
libraries say to no purpose in a kernel. Not here: plots, and what the numbers mean (poc.report).
"""

import logging
import warnings
from collections.abc import Callable
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from poc import configfile
from poc.config import RunConfig
from poc.records import RunError
from poc.report import language, words
from poc.report.arms import Judged, collect
from poc.report.read import read
from poc.resolve import resolve
from poc.text import visible

if TYPE_CHECKING:
    from poc.models import Policy

FINDINGS = (0, 3)  # exit codes of a run that ended, of one that its guard ended

logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it looks for optional kernels and says so
warnings.filterwarnings("ignore", message="IProgress not found")  # tqdm, where a kernel has no widgets


def start(*overrides: str) -> tuple[RunConfig, "Policy"]:
    """The configuration of `poc train --set OVERRIDE ...`, resolved, and its start model. Raises InputError."""
    from poc.models import load_policy

    config = resolve(configfile.load(RunConfig, None, overrides))
    policy = load_policy(
        config.model, quantization=config.quantization, lora_rank=config.lora.rank, lora_alpha=config.lora.alpha
    )
    return config, policy


def run(command: Callable, out: Path, *overrides: str) -> list[Judged]:
    """`poc COMMAND --set OVERRIDE ... --out OUT`: the arms of its report, judged. The page is out/report.html.

    `command`: one of poc.cli that train, for example poc.cli.pilot. Raises InputError as it does, and RunError where a
    run failed or was interrupted.
    """
    code = 0
    try:
        with redirect_stdout(StringIO()):
            command(out=out, set=list(overrides))
    except typer.Exit as ended:
        code = ended.exit_code
    arms = collect(read(out))
    if code not in FINDINGS:
        why = visible("; ".join(line for judged in arms for line in words.states(judged, language.load("en"))))
        raise RunError(f"{why or f'exit code {code}'}; poc resume {out} goes on")
    return arms
