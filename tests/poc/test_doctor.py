"""What `poc doctor` prints: complete, quick, without a secret."""

import os
import subprocess
import sys
import time
from pathlib import Path

from poc import doctor
from poc.scoring import sandbox

ROOT = Path(doctor.__file__).parents[1]


def test_every_finding_has_a_line(capsys):
    doctor.show()
    lines = capsys.readouterr().out.splitlines()
    assert [line[:16].strip() for line in lines] == [
        *("code sandbox", "python", "torch", "triton", "bitsandbytes", "transformers", "gpu", "cpus", "memory"),
        *("free disk", "offline models", "telemetry"),
    ]
    assert all(line[16:].strip() for line in lines)
    assert f"code sandbox    {sandbox.level()}" in lines[0]


def test_it_is_quick_and_imports_nothing_heavy():
    code = "from poc import doctor; import sys; doctor.show(); print({'torch', 'transformers'} & set(sys.modules))"
    began = time.monotonic()
    said = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert time.monotonic() - began < 3
    assert said.endswith("set()\n")


def test_no_secret_and_no_control_character(capsys, monkeypatch, tmp_path):
    monkeypatch.setenv("HF_TOKEN", "hf_canary_token")
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\nprintf 'Card \\033[31m, 570.1, 8192 MiB\\n'\n")
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    doctor.show()
    said = capsys.readouterr().out
    assert "hf_canary" not in said and "\x1b" not in said
    assert "Card \\x1b[31m, 570.1, 8192 MiB" in said


def test_without_a_sandbox_the_install_line_is_there(monkeypatch):
    monkeypatch.setattr(sandbox, "level", lambda: "none")
    monkeypatch.setattr(sandbox, "why_not", lambda: "bubblewrap: no bwrap on the PATH")
    said = dict(doctor.findings())["code sandbox"]
    assert "apt-get install bubblewrap" in said and "dnf install bubblewrap" in said and "refuse" in said


def test_a_slow_or_broken_nvidia_smi_is_not_waited_for(monkeypatch, tmp_path):
    tool = tmp_path / "nvidia-smi"
    monkeypatch.setattr(doctor.shutil, "which", lambda name: str(tool))
    monkeypatch.setattr(doctor, "PATIENCE", 0.2)
    for text, said in (("sleep 5", "TimeoutExpired"), ("exit 9", "finds no card")):
        tool.write_text(f"#!/bin/sh\n{text}\n")
        tool.chmod(0o755)
        assert said in doctor._gpu()


def test_a_missing_package_is_said():
    assert doctor._version("no-such-package-anywhere") == "not installed"
