"""How the project lives beside a package of Hugging Face that is also called kernels, and what stays light."""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


def python(code: str, cwd: Path, **environment: str) -> str:
    """What code prints in a new interpreter, `cwd` first on its path; fails with its errors."""
    kept = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    call = [sys.executable, "-c", code]
    done = subprocess.run(call, cwd=cwd, env={**kept, **environment}, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    return done.stdout


def test_the_folder_is_no_package():
    assert not (ROOT / "kernels" / "__init__.py").exists()
    spec = importlib.util.find_spec("kernels")
    assert spec is None or spec.origin is None or not Path(spec.origin).is_relative_to(ROOT)


def test_transformers_imports_from_the_repository_root():
    """A bare folder called kernels on the path must not be taken for the package that transformers looks for."""
    pytest.importorskip("transformers")
    python("from transformers import Qwen2ForCausalLM", ROOT, HF_HUB_OFFLINE="1")


def test_the_installed_package_imports_from_anywhere(tmp_path):
    listing = "import importlib.metadata as m; print(*(d.metadata['Name'] for d in m.distributions()))"
    if "poc-pilot-kit" not in python(listing, tmp_path).split():
        pytest.skip("the project is not pip-installed in this environment (pip install -e .)")
    python("import vocab_kernels, poc", tmp_path)


def test_the_kernels_do_not_know_the_pilot():
    """The arrow goes one way: vocab_kernels never imports poc."""
    python("import sys, vocab_kernels; assert 'poc' not in sys.modules", ROOT, PYTHONPATH=str(ROOT / "kernels"))


def test_the_command_line_starts_without_torch():
    python("import sys, poc.cli; assert 'torch' not in sys.modules, 'poc.cli imports torch'", ROOT)
