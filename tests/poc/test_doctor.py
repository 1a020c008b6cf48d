"""What `poc doctor` prints: complete, light, without a secret, and which pilot fits the machine."""

import os
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace

import pytest

from poc import cli, doctor
from poc.doctor import Card
from poc.scoring import sandbox

ROOT = Path(doctor.__file__).parents[1]
CARD = Card("NVIDIA RTX 3070", "570.86", 8.0, 8.6)
MODELS = {"a/base": True, "a/instruct": True}


def packages(version) -> SimpleNamespace:
    """importlib.metadata with other packages installed."""
    absent = metadata.PackageNotFoundError
    return SimpleNamespace(version=version, requires=metadata.requires, PackageNotFoundError=absent)


@pytest.fixture
def smi(monkeypatch, tmp_path):
    """Puts a program in the place of nvidia-smi."""

    def write(body: str) -> None:
        tool = tmp_path / "bin" / "nvidia-smi"
        tool.parent.mkdir(exist_ok=True)
        tool.write_text(f"#!/bin/sh\n{body}\n")
        tool.chmod(0o755)
        monkeypatch.setenv("PATH", f"{tool.parent}:{os.environ['PATH']}")

    return write


def test_every_finding_has_a_line_and_advice_follows(capsys, smi):
    smi("exit 9")
    assert doctor.show()
    lines = capsys.readouterr().out.splitlines()
    labels = [line[:16].strip() for line in lines[: lines.index("")]]
    assert labels == [
        *("code sandbox", "python", "torch", "triton", "bitsandbytes", "transformers", "peft", "gpu", "cpus", "memory"),
        *("free disk", "lab models", "offline models", "hub cache", "offline mode", "trackers", "tokens", "telemetry"),
    ]
    assert all(line[16:].strip() for line in lines[: lines.index("")])
    assert f"code sandbox    {sandbox.level()}" in lines[0]
    assert "There is no NVIDIA card" in " ".join(lines)


def test_it_imports_nothing_heavy():
    code = "import sys; from poc import doctor; doctor.show(); print({'torch', 'numpy'} & set(sys.modules))"
    said = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert said.endswith("set()\n")


def test_no_secret_and_no_control_character(capsys, monkeypatch, smi, tmp_path):
    monkeypatch.setenv("HF_TOKEN", "hf_canary_token")
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    smi("printf 'Card \\033[31m, 570.1, 8192, 8.6\\n'")
    doctor.show()
    said = capsys.readouterr().out
    assert "hf_canary" not in said and "\x1b" not in said
    assert "Card \\x1b[31m, 8.0 GiB, driver 570.1, compute capability 8.6" in said
    assert "HF_TOKEN set, WANDB_API_KEY not set" in said


def test_without_a_sandbox_the_install_line_is_there(monkeypatch):
    monkeypatch.setattr(sandbox, "level", lambda: "none")
    monkeypatch.setattr(sandbox, "why_not", lambda: "bubblewrap: no bwrap on the PATH")
    said = dict(doctor.findings())["code sandbox"]
    assert "apt-get install bubblewrap" in said and "dnf install bubblewrap" in said and "refuse" in said


def test_a_slow_or_broken_nvidia_smi_is_not_waited_for(monkeypatch, smi):
    monkeypatch.setattr(doctor, "PATIENCE", 0.2)
    for body, said in (("sleep 5", "TimeoutExpired"), ("exit 9", "finds no card"), ("echo nonsense", "finds no card")):
        smi(body)
        assert said in doctor._cards()[1] and doctor._cards()[0] == []


def test_an_old_driver_that_does_not_know_compute_cap_is_asked_again(smi):
    smi('case "$*" in *compute_cap*) echo "Field is not valid"; exit 2;; *) echo "Old, 450.1, 4096";; esac')
    assert doctor._cards() == ([Card("Old", "450.1", 4.0, None)], "")


@pytest.mark.parametrize(
    "card, cuda, said",
    [
        (CARD, "12.8", ""),
        (CARD, None, "pip install --force-reinstall torch"),
        (CARD._replace(driver="470.1"), "12.8", "update it to 525"),
        (CARD, "13.0", "update it to 580"),
        (CARD._replace(capability=6.1), "12.8", "6.1 is below 7.5"),
        (CARD._replace(capability=None), "12.8", ""),
        (CARD._replace(driver="[N/A]"), "12.8", ""),
        (CARD, "99.0", ""),
    ],
)
def test_whether_torch_can_use_the_card(card, cuda, said):
    found = doctor._misfit(card, cuda)
    assert said in found and bool(said) == bool(found)


def test_torch_s_cuda_is_read_from_its_version_file(monkeypatch, tmp_path):
    import torch

    assert doctor._torch_cuda() == torch.version.cuda
    (tmp_path / "version.py").write_text("cuda: Optional[str] = '12.8'\nhip = None\n")
    monkeypatch.setattr(doctor, "find_spec", lambda name: type("Spec", (), {"origin": str(tmp_path / "__init__.py")}))
    assert doctor._torch_cuda() == "12.8"


@pytest.mark.parametrize(
    "machine, said, unsaid",
    [
        ((None, "", MODELS, True, False), "There is no NVIDIA card, so two pilots fit", "make offline-models"),
        ((None, "", MODELS, False, False), "after: make offline-models", "gpu-8gb"),
        ((CARD, "too old", MODELS, True, False), "cannot use the card (too old); until then two pilots", "gpu-8gb"),
        (
            (CARD, "", MODELS, True, False),
            "(a/base and a/instruct, 4-bit weights) fits it.",
            "larger",
        ),
        (
            (CARD, "", {"a/base": False}, True, False),
            "downloads a/base first (beforehand: hf download a/base)",
            "unset",
        ),
        ((CARD, "", {"a/base": False}, True, True), "unset HF_HUB_OFFLINE", "downloads"),
        ((CARD._replace(gib=24.0), "", MODELS, True, False), "room for larger models", "says whether it fits"),
        ((CARD._replace(gib=4.0), "", MODELS, True, False), "poc plan gpu-8gb --memory-gib 3.5", "fits it."),
    ],
)
def test_what_a_pilot_here_can_be(machine, said, unsaid):
    found = doctor.advice(*machine)
    assert said in found and unsaid not in found


def test_what_every_pilot_needs_is_exit_1_with_what_mends_it(monkeypatch, capsys):
    assert doctor.faults() == []
    real = metadata.version

    def version(name):
        if name == "peft":
            raise metadata.PackageNotFoundError(name)
        return "4.0" if name == "transformers" else real(name)

    monkeypatch.setattr(doctor, "metadata", packages(version))
    monkeypatch.setattr(sys, "argv", ["poc", "doctor"])
    with pytest.raises(SystemExit) as stopped:
        cli.main()
    said = capsys.readouterr().out
    assert stopped.value.code == 1 and "pip install" in said.splitlines()[-1]
    assert "peft" in said.splitlines()[-1] and "transformers>=5.10.1" in said.splitlines()[-1]
    monkeypatch.setattr(doctor, "_free", lambda: 0.05)
    assert "0.05 GiB of free disk" in doctor.faults()[-1]


def test_models_in_the_hub_s_cache_are_named_if_they_are_whole(monkeypatch, tmp_path):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    assert doctor._hub_cache() == "no model"
    for i in range(10):
        (tmp_path / f"models--owner--name{i}").mkdir()
    (tmp_path / "models--a--b\x1b").mkdir()
    monkeypatch.setattr(doctor, "is_here", lambda name: int(name[-1]) != 3)
    said = doctor._hub_cache()
    assert said.startswith("owner/name0, owner/name1, owner/name2, owner/name4") and said.endswith("and 1 more")


def test_trackers_offline_mode_and_telemetry(monkeypatch):
    found = {"tensorboard": "2.21"}

    def version(name):
        if name not in found:
            raise metadata.PackageNotFoundError(name)
        return found[name]

    monkeypatch.setattr(doctor, "metadata", packages(version))
    assert doctor._trackers() == "tensorboard 2.21; not installed: trackio, wandb (pip install trackio)"
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert doctor._offline_mode().startswith("on")
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "0")
    assert doctor._telemetry().endswith("you set for its libraries: HF_HUB_DISABLE_TELEMETRY")


def test_a_missing_package_is_said():
    assert doctor._version("no-such-package-anywhere") == "not installed: pip install no-such-package-anywhere"
