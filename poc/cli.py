"""The command line: parse, call, print. Heavy libraries load when a run needs them.

Exit codes: 0 done, 2 wrong input (nothing was started), 3 the guard stopped the run (its best checkpoint counts),
1 a failure, 130 interrupted (the run folders are whole). An arm that the guard stopped is a finding of its pilot: 0.
"""

import json
import logging
import os
import shlex
import shutil
import sys
import warnings
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Annotated

import typer

from poc import __version__
from poc.parallel import World, the_world
from poc.records import InputError, RunError
from poc.text import visible
from poc.tracker import TELEMETRY_OFF

app = typer.Typer(
    add_completion=False, no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode=None,
    help="Pilot label-free reinforcement learning of a small language model on one GPU or a laptop.",
)  # fmt: skip

MOST_QUESTIONS = 100_000  # that --csv writes
TRAINING = ("pilot", "train", "transfer", "improve", "resume")  # what several processes can do together (poc.parallel)

Config = Annotated[str | None, typer.Argument(help="YAML file; without it the embedded lab models are used.")]
Out = Annotated[Path | None, typer.Option("--out", help="Folder to write; a new one under runs/ by default.")]
Set = Annotated[list[str] | None, typer.Option("--set", help="Override one key: train.steps=20. Repeatable.")]
Seed = Annotated[int | None, typer.Option("--seed", min=0, help="Seed of the run (pilot: its only seed).")]
Memory = Annotated[float | None, typer.Option("--memory-gib", help="The most that a run may take, in GiB.")]
Mix = Annotated[
    str | None,
    typer.Option("--mix", help="Shares of the second model, 0,0.1,0.5,1: the first arm's reward from mixed starts."),
]


@app.command()
def pilot(
    config: Config = None, out: Out = None, set: Set = None, seed: Seed = None, mix: Mix = None, memory: Memory = None
) -> None:  # fmt: skip
    """Run all arms of a pilot and write its report."""
    from poc import pilot as stage
    from poc.config import PilotConfig
    from poc.configfile import load

    checked = load(PilotConfig, config, _with_memory(set, memory), seed)
    checked = _mixed(checked, mix) if mix is not None else checked
    out = out or _new_folder("pilot")
    _run(checked, stage.jobs_of(checked, out), out, is_pilot=True)


@app.command()
def transfer(config: Config = "transfer", out: Out = None, set: Set = None, seed: Seed = None) -> None:
    """Train on each domain alone and on all in equal shares; measure every run on every domain."""
    from poc import pilot as stage
    from poc.config import PilotConfig
    from poc.configfile import load

    checked = load(PilotConfig, config, set or [], seed)
    try:
        checked = checked.transferred()
    except ValueError as error:
        raise InputError(f"transfer: {error}") from None
    out = out or _new_folder("transfer")
    _run(checked, stage.jobs_of(checked, out), out, is_pilot=True)


@app.command()
def train(
    config: Config = None, out: Out = None, set: Set = None, seed: Seed = None, memory: Memory = None
) -> None:  # fmt: skip
    """Train one model with one reward mix and write its report."""
    from poc import pilot as stage
    from poc.config import RunConfig
    from poc.configfile import load

    checked = load(RunConfig, config, _with_memory(set, memory), seed)
    out = out or _new_folder("train")
    _run(checked, [stage.Job(out, out.name, None, stage.resolve(checked))], out, is_pilot=False)


@app.command()
def resume(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of an interrupted run or pilot.")],
) -> None:
    """Go on with an interrupted run or pilot, exactly where it stood."""
    from poc.resume import begun_in, left
    from poc.runfolder import read_outcome

    run = run.resolve()
    os.chdir(begun_in(run) or Path())
    found = left(run)
    if not found.open:
        print(f"{run}: has ended, there is nothing left to do: poc report {run}")
        stopped = not found.is_pilot and read_outcome(run).get("status") == "stopped"
        raise typer.Exit(3 if stopped else 0)
    if found.kind == "equivalence":
        return _equivalence(found.config, found.jobs, run, _go)
    _go(found.config, found.jobs, run, found.is_pilot, kind="improve" if found.kind == "improve" else "train")


@app.command()
def verify(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="A run or pilot folder.")],
    head: Annotated[
        list[str] | None, typer.Option("--head", help="A head that you noted, SEQ:HEX: it must be in the log.")
    ] = None,
) -> None:
    """Check a run's audit log, checkpoints and results against each other; exit code 1 if anything was changed."""
    from poc.audit_check import verify_run
    from poc.audit_verify import parse_head

    try:
        heads = [parse_head(text) for text in head or []]
    except ValueError as error:
        raise InputError(f"--head: {error}") from None
    found = verify_run(run, heads)
    print("\n".join(found.lines))
    raise typer.Exit(0 if found.ok else 1)


@app.command()
def plan(
    config: Config = None, set: Set = None, seed: Seed = None, mix: Mix = None, memory: Memory = None,
    probe: Annotated[bool, typer.Option("--probe", help="Sample the start models; say where they may fail.")] = False,
) -> None:  # fmt: skip
    """Check a run or a pilot and show what it would do; nothing is trained or written."""
    from poc import pilot as stage
    from poc.config import PilotConfig
    from poc.configfile import kind_of, load
    from poc.plan import show

    kind = kind_of(config, set or [])
    checked = load(kind, config, _with_memory(set, memory), seed)
    if mix is not None and kind is not PilotConfig:
        raise InputError("--mix: for a pilot; this configuration is one run (it has model or reward)")
    checked = _mixed(checked, mix) if mix is not None else checked
    is_pilot = kind is PilotConfig
    jobs = stage.jobs_of(checked, Path()) if is_pilot else [stage.Job(Path(), "run", None, stage.resolve(checked))]
    show(jobs, stage.prepare(jobs), probe)


@app.command()
def equivalence(config: Config = None, out: Out = None, set: Set = None, seed: Seed = None) -> None:
    """Train as `poc train` does and measure how alike the rewards are, at step 1 and every evaluate.every steps."""
    from poc import pilot as stage
    from poc.config import RunConfig
    from poc.configfile import load

    checked = load(RunConfig, config, set or [], seed)
    from poc.equivalence import check

    check(checked)
    out = out or _new_folder("equivalence")
    _equivalence(checked, [stage.Job(out, out.name, None, stage.resolve(checked))], out, _run)


@app.command()
def improve(config: Config = "improve", out: Out = None, set: Set = None, seed: Seed = None) -> None:
    """Fine-tune a model on its own choices, round by round, and measure solver and verifier (poc.improve)."""
    from poc import pilot as stage
    from poc.config import RunConfig
    from poc.configfile import load
    from poc.gap.external import check

    checked = load(RunConfig, config, set or [], seed)
    check(checked)
    out = out or _new_folder("improve")
    _run(checked, [stage.Job(out, out.name, None, stage.resolve(checked))], out, is_pilot=False, kind="improve")


@app.command()
def gap(
    runs: Annotated[list[Path], typer.Argument(help="Run or pilot folders with measurements of solver and verifier.")],
    until: Annotated[int | None, typer.Option("--until", min=1, help="Only what was measured up to this step.")] = None,
) -> None:
    """Print what solver and verifier did, the fit and the forecast, and write the report with the curves."""
    from poc import report as stage
    from poc.gap.show import show

    show(runs, until)
    if until is not None:
        return print("no page was written: without --until it is")
    print(visible(str(stage.write(runs, (runs[0] if len(runs) == 1 else Path()) / "report.html"))))


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(help="Run or pilot folders.")],
    out: Annotated[
        Path | None, typer.Option("--out", help="HTML file; report.html in the folder, of several: here.")
    ] = None,
    table: Annotated[bool, typer.Option("--table", help="Print a Markdown table for a log; write nothing.")] = False,
    language: Annotated[str, typer.Option("--language", help="Of the page: en or ja.")] = "en",
) -> None:
    """Write the decision report on finished runs, one offline HTML page, or print a table."""
    from poc import report as stage

    if table and out:
        raise InputError(f"--table writes nothing, so --out {out} has no use: give one of the two")
    if table and language != "en":
        raise InputError(f"--table is for a log, which is in English: leave --language {language} out")
    if table:
        return print(stage.table(runs), end="")
    path = stage.write(runs, out or (runs[0] if len(runs) == 1 else Path()) / "report.html", language)
    print(visible(stage.told(path, language)))


@app.command()
def evaluate(
    model: Annotated[str, typer.Argument(metavar="RUN|MODEL", help="A run (the checkpoint it ended with) or a model.")],
    out: Annotated[Path | None, typer.Option("--out", help="JSON file to write with every completion.")] = None,
    set: Set = None,
) -> None:
    """Measure a model or the checkpoint that a run ended with on the hold-out and print the metrics."""
    from poc.measure import measure

    measure(model, out, set or [])


@app.command()
def domains(
    name: Annotated[str | None, typer.Argument(help="One domain; without it all are listed.")] = None,
    level: Annotated[int | None, typer.Option("--level", min=0, help="Three questions of this level in full.")] = None,
    attack: Annotated[bool, typer.Option("--attack", help="Send hostile answers to the scorers.")] = False,
    csv: Annotated[Path | None, typer.Option("--csv", help="With table: make questions from this file.")] = None,
    count: Annotated[int, typer.Option("--count", min=1, help="With --csv: how many questions.")] = 400,
    out: Annotated[Path | None, typer.Option("--out", help="With --csv: JSON lines file to write.")] = None,
    seed: Seed = None,
) -> None:  # fmt: skip
    """Show the kit's questions, attack their scorers, or make questions from a table of yours."""
    from poc import domains as page

    if csv is None and out is not None:
        raise InputError(f"--out {out}: only with --csv, which makes questions from a table of yours")
    if csv is not None:
        return _own_questions(name, level, attack, csv, count, out, seed or 0)
    if attack:
        raise typer.Exit(page.attack(name))
    page.show(name, level, seed or 0)


@app.command()
def difficulty(
    config: Config = None, out: Out = None, set: Set = None, seed: Seed = None,
    strong: Annotated[str | None, typer.Option("--strong", help="A stronger model; without: no label used.")] = None,
    samples: Annotated[int, typer.Option("--samples", min=2, help="Completions of each question and model.")] = 16,
) -> None:  # fmt: skip
    """Say which training questions are too easy, too hard or suspicious for the start model; can be resumed."""
    from poc import difficulty as stage
    from poc import pilot
    from poc.config import RunConfig
    from poc.configfile import load

    checked = pilot.resolve(load(RunConfig, config, set or [], seed))
    stage.run(checked, strong, samples, out or _new_folder("difficulty"))


@app.command()
def graduate(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a finished or interrupted run.")],
    to: Annotated[str, typer.Option("--to", help="Where it goes on: trl, for FSDP, DeepSpeed and vLLM.")] = "trl",
    out: Out = None,
) -> None:
    """Write a folder that goes on with a run in TRL's GRPOTrainer, when one GPU is not enough."""
    from poc.graduate.folder import graduate as write

    print("\n".join(write(run, to, out or _new_folder("graduate"))))


@app.command()
def review(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run that has ended.")],
    count: Annotated[int | None, typer.Option("--count", min=1, max=1000, help="Completions; 40 by default.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="Of the sample; 0 by default.")] = None,
    show_gold: Annotated[bool | None, typer.Option("--show-gold", help="Show the known answers.")] = None,
    reviewer: Annotated[str, typer.Option("--reviewer", help="Your name, for the record.")] = "",
    csv: Annotated[Path | None, typer.Option("--csv", help="Write a table to fill in instead of asking.")] = None,
    html: Annotated[Path | None, typer.Option("--html", help="Write an offline page to fill in.")] = None,
    read: Annotated[Path | None, typer.Option("--read", help="Read a filled-in table or saved verdicts back.")] = None,
) -> None:  # fmt: skip
    """Judge a blind sample of a run's completions yourself: how far do you and the verifier agree?"""
    from poc.review_session import review as judge

    options = {"count": count, "seed": seed, "show_gold": show_gold}
    judge(run, options, reviewer=reviewer, csv=csv, html=html, form=read)


@app.command()
def watch(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a run or pilot, also before it begins.")],
    once: Annotated[bool, typer.Option("--once", help="One frame, then out; so it is without a terminal.")] = False,
    every: Annotated[float, typer.Option("--every", min=0.1, help="Seconds between two looks.")] = 2.0,
) -> None:
    """Follow a run or pilot that trains in another terminal: curves, guard, samples. It reads the folder only."""
    from poc.watch_screen import show

    show(run, every, once)


@app.command()
def export(
    run: Annotated[Path, typer.Argument(metavar="RUN", help="The folder of a finished or interrupted run.")],
    to: Annotated[str, typer.Option("--to", help="adapter (PEFT), merged (16-bit weights) or gguf.")] = "adapter",
    out: Out = None,
    dtype: Annotated[
        str | None, typer.Option("--dtype", help="Of merged weights: bfloat16 (the default) or float16.")
    ] = None,
) -> None:
    """Hand a run over: a folder with model card that loads without this kit and says what the run says."""
    from poc.export.folder import export as write

    print("\n".join(write(run, to, out or _new_folder("export"), dtype)))


@app.command()
def doctor() -> None:
    """What this machine has, what a pilot on it can be, and what mends what is missing; exit code 1 if none can run."""
    from poc.doctor import show

    raise typer.Exit(0 if show() else 1)


@app.callback(invoke_without_command=True)
def _root(
    context: typer.Context, version: Annotated[bool, typer.Option("--version", help="Print the version.")] = False
) -> None:
    if version:
        print(f"poc {__version__}")
        raise typer.Exit()
    if the_world().size > 1 and context.invoked_subcommand not in TRAINING:
        raise InputError(f"poc {context.invoked_subcommand} runs in one process: start it without accelerate launch")


def _with_memory(overrides: list[str] | None, gib: float | None) -> list[str]:
    return [*(overrides or []), *([] if gib is None else [f"train.memory_gib={gib}"])]


def _own_questions(name, level, attack: bool, csv: Path, count: int, out: Path | None, seed: int) -> None:
    """`poc domains table --csv my.csv --out questions.jsonl`."""
    from poc import own_table

    if name not in (None, "table") or attack:
        raise InputError("--csv makes questions for the domain table: leave the other domain and --attack out")
    if not csv.is_file():
        raise InputError(f"--csv {csv}: is no file; name a table with a header line")
    if count > MOST_QUESTIONS:
        raise InputError(f"--count {count}: at most {MOST_QUESTIONS:,}")
    out = out or csv.with_suffix(".questions.jsonl")
    if out.exists() or out.suffix != ".jsonl" or not out.parent.is_dir():
        raise InputError(f"--out {out}: name a new file that ends in .jsonl, in a folder that exists")
    own_table.write(csv, out, count, seed, level)
    value = f"data={{file: {json.dumps(str(out))}, prompt: question, answer: answer}}"
    print(f"{out}: {count} questions. Train on them:\npoc pilot --set {shlex.quote(value)}")


def _new_folder(kind: str) -> Path:
    name = the_world().from_writer("a new folder", lambda: f"{kind}-{datetime.now():%Y%m%d-%H%M%S}")
    return Path("runs") / name


def _remove(folder: Path, existed: bool) -> None:
    """What this command put there; the folder itself only if it made it."""
    for child in folder.iterdir():
        shutil.rmtree(child) if child.is_dir() else child.unlink()
    if not existed:
        folder.rmdir()


def _mixed(config, mix: str):
    """The pilot from mixed starts; `mix` is what the user typed."""
    try:
        shares = [float(share) for share in mix.split(",")]
    except ValueError:
        raise InputError(f"--mix {mix}: not a list of numbers; write shares such as 0,0.1,0.2,0.5,1") from None
    try:
        return config.mixed(shares)
    except ValueError as error:
        raise InputError(f"--mix {mix}: {error}") from None


def _equivalence(config, jobs, out: Path, run) -> None:
    """Run, or go on with, a run that measures how alike the rewards are, and its page."""
    from poc.equivalence import observer
    from poc.equivalence_page import show

    if the_world().size > 1:
        raise InputError(f"{out}: measures how alike rewards are, in one process: start it without accelerate launch")
    try:
        run(config, jobs, out, is_pilot=False, observer=observer, kind="equivalence")
    except typer.Exit:  # done, failed or interrupted: what was measured is there
        show(out)
        raise


def _run(config, jobs, out: Path, is_pilot: bool, observer=None, kind: str = "train") -> None:
    """Check, make the folder, run, report."""
    from poc import durable, runfolder
    from poc import pilot as stage

    data, existed = stage.prepare(jobs), out.exists()
    if not the_world().is_writer:
        return _go(config, jobs, out, is_pilot, observer, data, kind)
    runfolder.create_empty(out)
    held = runfolder.lock(out)  # before anything is written or, below, removed
    try:
        runfolder.create_empty(out)
        if is_pilot:
            runfolder.write_config(out, config)
            durable.write_json(out / "environment.json", runfolder.environment() | runfolder.begun_in(out))
        _go(config, jobs, out, is_pilot, observer, data, kind)
    except InputError:  # found with the tokenizer only: nothing has been trained
        if not any(out.rglob("steps.jsonl")):
            _remove(out, existed)
        raise
    finally:
        held.release()


def _go(config, jobs, out: Path, is_pilot: bool, observer=None, data=None, kind: str = "train") -> None:
    """Run what is left of the jobs, then report."""
    from contextlib import nullcontext

    from poc import pilot as stage
    from poc import runfolder
    from poc.display import watching
    from poc.interrupt import deferred

    world = the_world()
    pilot_of = out.resolve().parent.parent if out.resolve().parent.name == "arms" else None
    with (
        _told_how_to_go_on(out),
        runfolder.lock(out) if world.is_writer else nullcontext(),
        runfolder.lock(pilot_of) if pilot_of and world.is_writer else nullcontext(),
        watching(sum(stage.steps_left(job) for job in jobs)) as watch,
        deferred(watch) as asked,
        world.shared_fate(),
    ):
        watch.say(f"{len(jobs)} run(s) of {jobs[0].config.train.steps} steps into {out}")
        interrupted = lambda: world.any("interrupted", asked())  # noqa: E731
        state = stage.run(jobs, data or stage.prepare(jobs), watch, interrupted, observer, kind)
    said = state
    if state == "stopped" and is_pilot:
        state, said = "done", "done, the guard ended an arm"  # which is a finding of the pilot
    world.from_writer("report", lambda: _report(out, said))
    raise typer.Exit({"done": 0, "failed": 1, "stopped": 3, "interrupted": 130}[state])


def _report(out: Path, said: str) -> None:
    from poc.report import write

    print(f"{said}: report in {visible(str(write([out], out / 'report.html')))}")
    if said == "interrupted":
        print(f"go on with: poc resume {shlex.quote(str(out))}")


@contextmanager
def _told_how_to_go_on(out: Path):
    """What ends a run from outside is one line with the command that goes on with it."""
    try:
        yield
    except (OSError, KeyboardInterrupt) as error:
        way_on = "nothing had been trained yet"
        if any(out.rglob("checkpoints/step-*")):
            way_on = f"to go on from the last checkpoint: poc resume {shlex.quote(str(out))}"
        if isinstance(error, KeyboardInterrupt):
            _end(130, f"stopped at once; {way_on}", the_world())
        _end(1, f"{error.filename or out}: {error.strerror or error}; {way_on}", the_world())


def main() -> None:
    """Entry point: wrong input is one line and exit code 2; a full disk and the like one line and 1."""
    for name, value in TELEMETRY_OFF.items():
        os.environ.setdefault(name, value)
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("PYTORCH_ALLOC_CONF", "expandable_segments:True")  # on CUDA: less memory lost between sizes
    warnings.filterwarnings("ignore", category=FutureWarning)  # of libraries, to their callers
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it looks for optional kernels and says so
    world = World()
    try:
        world = the_world()
        if not world.is_writer:
            sys.stdout = open(os.devnull, "w")  # noqa: SIM115
        with world.shared_fate():
            app()
    except InputError as error:
        _end(2, str(error), world)
    except KeyboardInterrupt:
        _end(130, "stopped at once", world)
    except RunError as error:
        _end(1, str(error), world)
    except OSError as error:
        place = error.filename or "file system"
        _end(1, f"{place}: {error.strerror or error}; what was written before is whole", world)
    except Exception as error:  # a defect: one traceback
        world.leave()
        if world.is_told_elsewhere(error):
            sys.exit(1)
        raise


def _end(code: int, message: str, world: World) -> None:
    if world.is_writer or world.broken:
        print(f"poc: {visible(' '.join(message.split()))}", file=sys.stderr, flush=True)
    if code != 130:  # at once
        world.leave()
    sys.exit(code)


if __name__ == "__main__":
    main()
