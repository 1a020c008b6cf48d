import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from poc import sources
from poc.records import InputError
from poc.sources import check_source, first_part, parse_mix

CONFIG = dict(model_type="llama", vocab_size=100, hidden_size=8, num_hidden_layers=2, num_key_value_heads=2)


def folder(path, weights="model.safetensors", **changes):
    path.mkdir()
    (path / "config.json").write_text(json.dumps({**CONFIG, **changes}))
    if weights:
        (path / weights).write_bytes(b"")
    return str(path)


def test_checking_imports_no_torch():
    code = "import sys, poc.sources; print([m for m in ('torch', 'transformers') if m in sys.modules])"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env={"PYTHONPATH": ":".join(sys.path)}
    )
    assert done.stdout.strip() == "[]", done.stderr


@pytest.mark.parametrize(
    "source, message",
    [
        ("lab:instrct", "unknown 'lab:instrct'; did you mean 'lab:instruct'"),
        ("wheel:gemma3", "unknown 'wheel:gemma3'; did you mean 'wheel:gemma3-270m'"),
        ("lab:", "unknown 'lab:'; did you mean 'lab:base'"),
        ("labbase", "neither a folder nor a Hub id .* did you mean 'lab:base'"),
        ("/no/such/folder", "neither a folder nor a Hub id"),
        ("", "neither a folder nor a Hub id"),
        ("a/b/c", "neither a folder nor a Hub id"),
        ("mix:lab:base@0.5", "cannot read 'mix:lab:base@0.5': write mix:A.B@m"),
        ("mix:lab:base+lab:instruct", "cannot read"),
        ("mix:a/b+c/d+e/f@0.5", "cannot read"),
        ("mix:a/b+mix:c/d+e/f@0.5@0.5", "nests a mix in a mix"),
        ("mix:a/b+c/d@1.01", "the share '1.01' .* is not a number from 0"),
        ("mix:a/b+c/d@nan", "the share 'nan'"),
        ("mix:a/b+c/d@half", "the share 'half'"),
        ("mix:a/b+lab:instrct@0.5", "unknown 'lab:instrct'"),
        ("mix:wheel:smollm2-135m-instruct+wheel:gemma3-270m@0.5", "model_type is llama in .* and gemma3_text in"),
    ],
)
def test_wrong_sources_are_named_in_one_line(monkeypatch, source, message):
    monkeypatch.setattr(sources, "wheel_parts", lambda source: [])
    with pytest.raises(InputError, match=message) as caught:
        check_source(source)
    assert "\n" not in str(caught.value)


def test_a_lab_model_that_was_not_made(tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "LAB", tmp_path)
    with pytest.raises(InputError, match="python -m poc.lab"):
        check_source("lab:base")
    folder(tmp_path / "base")
    check_source("lab:base")


@pytest.mark.parametrize("source", sources.WHEELS)
def test_a_wheel_that_is_not_installed(monkeypatch, source):
    monkeypatch.setattr(sources, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=f"{source} is not installed here: pip install gguf"):
        check_source(source)


def test_wheel_parts_come_in_order_without_importing(monkeypatch, tmp_path):
    for package, inside in sources.WHEELS["wheel:gemma3-270m"].parts:
        path = tmp_path / package / inside
        path.parent.mkdir(parents=True)
        (tmp_path / package / "__init__.py").write_text("raise RuntimeError('imported')")
        path.write_bytes(b"")
    (tmp_path / "gguf.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    found = sources.wheel_parts("wheel:gemma3-270m")
    assert [p.suffix for p in found] == [".part00", ".part01", ".part02", ".part03"] and found[0].is_relative_to(
        tmp_path
    )
    found[2].unlink()
    with pytest.raises(InputError, match="not installed"):
        sources.wheel_parts("wheel:gemma3-270m")


def test_local_folders(tmp_path):
    check_source(folder(tmp_path / "good"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="no config.json"):
        check_source(str(tmp_path / "empty"))
    with pytest.raises(InputError, match="no model.*safetensors"):
        check_source(folder(tmp_path / "pickled", "pytorch_model.bin"))
    with pytest.raises(InputError, match="already quantised"):
        check_source(folder(tmp_path / "nf4", quantization_config={"load_in_4bit": True}))
    with pytest.raises(InputError, match="names no model_type"):
        check_source(folder(tmp_path / "odd", model_type=None) and _write(tmp_path / "odd", "[]"))
    with pytest.raises(InputError, match="not JSON"):
        check_source(_write(tmp_path / "odd", "{"))


def _write(path, text):
    (path / "config.json").write_text(text)
    return str(path)


@pytest.mark.parametrize(
    "name, value", [("model_type", "qwen2"), ("vocab_size", 101), ("num_hidden_layers", 3), ("rope_theta", 1e6)]
)
def test_a_mix_of_two_architectures_names_the_field(tmp_path, name, value):
    a, b = folder(tmp_path / "a", rope_parameters={"rope_theta": 1e4}), folder(tmp_path / "b", **{name: value})
    with pytest.raises(InputError, match=f"{name} is {CONFIG.get(name, 1e4)} in .*a and {value} in .*b"):
        check_source(f"mix:{a}+{b}@0.5")
    check_source(f"mix:{a}+{folder(tmp_path / 'c', rope_theta=1e4, head_dim=4)}@0.5")  # unstated fields pass


@given(st.floats(0, 1))
def test_parse_mix_reads_what_was_written(m):
    assert parse_mix(f"mix:lab:base+owner/name-1.5@{m!r}") == ("lab:base", "owner/name-1.5", m)


def test_first_part():
    assert first_part("mix:lab:base+lab:instruct@0.5") == first_part("lab:base") == "lab:base"
