"""The notebooks: they define nothing, show what a real run gave, name no place of a machine, and still run."""

import ast
import os
import re
import sys
from pathlib import Path
from xml.etree import ElementTree

import nbformat
import pytest
from jupyter_client import AsyncKernelManager
from nbclient import NotebookClient

ROOT = Path(__file__).resolve().parent.parent
NOTEBOOKS = sorted((ROOT / "notebooks").glob("*.ipynb"))
ALLOWED = {"poc", "vocab_kernels", "numpy", "matplotlib", "torch", *sys.stdlib_module_names}
DEFINITIONS = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)
ASSIGNMENTS = (ast.Assign, ast.AnnAssign, ast.NamedExpr)
PLACE = re.compile(r"(?<![\w.:/])/(?:home|root|tmp|var|usr|opt|mnt|work|srv|Users|private)/|\b[A-Z]:\\")
PICTURES = {"image/png", "image/svg+xml"}
MOST = 300_000  # bytes of a notebook

every = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def code(notebook) -> list:
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def parsed(path: Path) -> ast.Module:
    """All cells as one module; a magic or a shell line is a SyntaxError."""
    return ast.parse("\n".join(cell.source for cell in code(nbformat.read(path, as_version=4))))


def outputs(path: Path) -> list:
    return [output for cell in code(nbformat.read(path, as_version=4)) for output in cell.outputs]


def shown(output) -> str:
    """Whatever text an output holds, SVG too; not the bytes of a PNG."""
    texts = [value for kind, value in output.get("data", {}).items() if kind != "image/png"]
    return "\n".join(map(str, [output.get("text", ""), *texts]))


def test_all_of_them_are_there():
    assert [path.stem[:2] for path in NOTEBOOKS] == ["01", "02", "03", "04", "05", "06", "07"]


@every
def test_it_is_a_notebook_that_begins_with_its_question(path):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    first = notebook.cells[0]
    assert first.cell_type == "markdown" and first.source.startswith(f"# {path.stem[:2]} ")
    told = "\n".join(cell.source for cell in notebook.cells if cell.cell_type == "markdown")
    for part in ("**Question.**", "## What it means", "## What it does not mean"):
        assert told.count(part) == 1, part
    assert path.stat().st_size <= MOST


@every
def test_it_defines_nothing(path):
    nodes = list(ast.walk(parsed(path)))
    assert not [node.name for node in nodes if isinstance(node, DEFINITIONS)]
    assert not [node.lineno for node in nodes if isinstance(node, ASSIGNMENTS) and isinstance(node.value, ast.Lambda)]


@every
def test_it_imports_the_kit_and_little_else(path):
    nodes = list(ast.walk(parsed(path)))
    named = [alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names]
    named += [node.module for node in nodes if isinstance(node, ast.ImportFrom)]
    roots = {name.partition(".")[0] for name in named}
    assert roots <= ALLOWED, roots - ALLOWED
    assert roots & {"poc", "vocab_kernels"}


@every
def test_outputs_are_those_of_one_run_from_top_to_bottom(path):
    cells, found = code(nbformat.read(path, as_version=4)), outputs(path)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    assert sum(bool(cell.outputs) for cell in cells) >= len(cells) / 2
    assert any(PICTURES & output.get("data", {}).keys() for output in found)
    assert not [output for output in found if output.output_type == "error"]
    assert not [output.text for output in found if output.get("name") == "stderr"]


@every
def test_its_drawings_can_be_drawn(path):
    """SVG that is escaped, or has no namespace, shows as nothing."""
    drawn = [output.data["image/svg+xml"] for output in outputs(path) if "image/svg+xml" in output.get("data", {})]
    assert all(ElementTree.fromstring(svg).tag == "{http://www.w3.org/2000/svg}svg" for svg in drawn)


@every
def test_it_names_no_place_of_a_machine(path):
    cells = nbformat.read(path, as_version=4).cells
    texts = [*(cell.source for cell in cells), *map(shown, outputs(path))]
    assert not [found[0] for text in texts if (found := PLACE.search(text))]


@every
def test_its_links_lead_somewhere(path):
    told = "\n".join(cell.source for cell in nbformat.read(path, as_version=4).cells if cell.cell_type == "markdown")
    for link in re.findall(r"\]\(([^)]+)\)", told):
        assert link.startswith("https://arxiv.org/abs/") or (path.parent / link).exists(), link


@every
def test_it_runs_from_start_to_end(path, tmp_path, monkeypatch):
    """In a kernel of its own and a folder that is empty; a cell that raises fails the test with its traceback."""
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(ROOT / "kernels")]))
    for name in ("TMPDIR", "IPYTHONDIR", "JUPYTER_RUNTIME_DIR"):
        monkeypatch.setenv(name, str(tmp_path))
    notebook = nbformat.read(path, as_version=4)
    kernel = AsyncKernelManager(kernel_name="python3", transport="ipc")  # two kernels may be after the same port
    kernel.ip = str(tmp_path / "kernel")
    done = NotebookClient(notebook, km=kernel, timeout=600, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert any(PICTURES & output.get("data", {}).keys() for cell in code(done) for output in cell.outputs)
