"""The cross-domain study: its arms, its data, its matrix."""

import importlib.util
import re
from pathlib import Path

import pytest

from poc import pilot, report, tasks
from poc.config import DOMAIN_LEVELS, Data, PilotConfig
from poc.configfile import load
from poc.records import InputError
from poc.report.arms import collect
from poc.report.read import read
from poc.report.transfer import matrices

_spec = importlib.util.spec_from_file_location("fake_runs", Path(__file__).with_name("fake_runs.py"))
fake_runs = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(fake_runs)


@pytest.fixture(scope="module")
def studied(tmp_path_factory):
    return fake_runs.transfer_pilot(tmp_path_factory.mktemp("transfer") / "study")


def found(folder):
    return matrices(collect(read(folder)))


def test_every_model_learns_every_domain_alone_and_all_of_them():
    config = load(PilotConfig, "transfer", []).transferred()
    jobs = pilot.jobs_of(config, Path("x"))
    assert [job.name for job in jobs[:7]] == [f"base-{d}-seed0" for d in (*config.data.measure, "mix")]
    assert len(jobs) == 2 * (len(DOMAIN_LEVELS) + 1) and set(config.data.measure) == set(DOMAIN_LEVELS)
    assert len({job.config.train.model_dump_json() for job in jobs}) == 1  # the same budget for all
    assert {job.config.model for job in jobs} == {"lab:base", "lab:instruct"}


def test_transfer_is_between_domains_of_the_kit():
    with pytest.raises(ValueError, match="file"):
        PilotConfig(data=Data(file="x.csv")).transferred()
    with pytest.raises(ValueError, match="two domains"):
        PilotConfig(data=Data(measure=["math"])).transferred()


def test_a_mix_has_equal_shares_and_every_domain_is_measured_on_the_same_questions():
    counts = {"train": 20, "holdout": 10, "canary": 4}
    mixed = tasks.load(Data(domains=["math", "logic"], measure=["math", "logic"], **counts), 1)
    alone = tasks.load(Data(domain="math", measure=["math", "logic"], **counts), 1)
    assert [e.domain for e in mixed["train"]] == ["math"] * 10 + ["logic"] * 10
    assert mixed["domain-math"] == alone["holdout"] and mixed["domain-logic"] == alone["domain-logic"]
    assert "domain-math" not in alone  # it is the hold-out itself
    assert len(alone["domain-logic"]) == 10 and {e.domain for e in alone["domain-logic"]} == {"logic"}


@pytest.mark.parametrize(
    "options, message",
    [
        ({"domains": ["maths"]}, "domains: unknown 'maths'; did you mean 'math'"),
        ({"measure": ["math", "math"]}, "named twice"),
        ({"domains": ["math", "table"], "level": 4}, "level: table has levels 0 to 3, got 4"),
        ({"measure": ["math"], "file": "x.csv"}, "measure: for the kit's own questions"),
        ({"format": "mbpp"}, "set one of them"),
        ({"format": "mpbb", "file": "x.jsonl"}, "did you mean 'mbpp'"),
    ],
)
def test_what_cannot_work_is_said(options, message):
    with pytest.raises(ValueError, match=re.escape(message)):
        Data(**options)


def test_questions_of_several_domains_keep_their_own_instructions():
    config = pilot.resolve(load(PilotConfig, "transfer", []).transferred().run_config(
        load(PilotConfig, "transfer", []).transferred().arms[6], 0))  # fmt: skip
    assert config.prompt.instruction is None and len(config.data.domains) == 6
    assert config.train.max_new_tokens == max(m.max_new_tokens(0) for m in tasks.DOMAINS.values())
    assert config.semantic.cluster == "exact"


def test_the_matrix_has_a_row_for_each_arm_and_a_column_for_each_domain(studied):
    base, instruct = found(studied)
    assert base.columns == instruct.columns == ("math", "code", "logic")
    assert [row.trained for row in base.rows] == [("math",), ("code",), ("logic",), ("math", "code", "logic")]
    own = [row.cells[i].change.value for i, row in enumerate(base.rows[:3])]
    others = [c.change.value for i, row in enumerate(base.rows[:3]) for j, c in enumerate(row.cells) if i != j]
    assert min(own) > 0.15 and max(others) < 0 and len(others) == 6
    assert all(cell.change.value > 0 for cell in base.rows[3].cells)


def test_an_ordinary_pilot_has_no_matrix(tmp_path):
    assert found(fake_runs.pilot(tmp_path / "p", prompts=8)) == []
    assert "carries over" not in report.write([tmp_path / "p"], tmp_path / "r.html").read_text()


def test_a_run_that_is_not_there_leaves_a_gap(tmp_path):
    folder = fake_runs.transfer_pilot(tmp_path / "study", prompts=8)
    for path in (folder / "arms/base-math-seed0/evaluations/domain-code").iterdir():
        path.unlink()
    base, _ = found(folder)
    assert base.rows[0].cells[1] is None and base.rows[1].cells[1] is not None
    page = report.write([folder], tmp_path / "r.html").read_text()
    assert page.count("trained on") >= 2


def test_page_and_table_show_the_matrix(studied, tmp_path):
    page = report.write([studied], tmp_path / "report.html").read_text()
    assert "What carries over between domains" in page and "mix of 3" in page
    assert "Base model: lab:base on code, level 0" in re.sub(r"\s+", " ", page)  # one heading for each hold-out
    table = report.table([studied])
    head = next(line for line in table.splitlines() if "trained on" in line)
    assert head.endswith("| math | code | logic |") and "mix of 3" in table
    assert "domain-code" not in table  # the matrix has it


def test_arms_on_other_holdouts_are_not_compared(studied):
    groups = {j.arm.group for j in collect(read(studied))}
    assert len(groups) == 8


def test_the_command_refuses_own_questions(tmp_path):
    from poc import cli

    with pytest.raises(InputError, match="transfer"):
        cli.transfer(config="transfer", out=tmp_path / "x", set=["data.file=a.csv", "data.measure=[]"], seed=None)
