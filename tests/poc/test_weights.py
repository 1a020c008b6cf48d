import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import LlamaConfig, LlamaForCausalLM

from poc.lab import tokenizer as lab_tokenizer
from poc.models import load_policy
from poc.records import InputError
from poc.weights import MANIFEST, cached, digest_model, locate

SHAPE = dict(
    vocab_size=128, hidden_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
    intermediate_size=64, max_position_embeddings=64,
)  # fmt: skip
LORA = dict(lora_rank=4, lora_alpha=8.0)


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "poc-pilot-kit"


@pytest.fixture
def pair(tmp_path):
    """Two models of one architecture with different weights; b has a chat template and is sharded."""
    for seed, name in enumerate("ab"):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = LlamaForCausalLM(LlamaConfig(**SHAPE))
        model.save_pretrained(tmp_path / name, max_shard_size="20KB" if name == "b" else "1GB")
        lab_tokenizer.build(name == "b").save_pretrained(tmp_path / name)
    return tmp_path / "a", tmp_path / "b"


def tensors(folder):
    return {k: v for path in folder.glob("model*.safetensors") for k, v in load_file(path).items()}


@pytest.mark.parametrize("m", [0.0, 0.2, 1.0])
def test_mix_is_the_weighted_sum(pair, m):
    a, b = (tensors(x) for x in pair)
    assert len(list(pair[1].glob("model*.safetensors"))) > 1
    mixed = tensors(locate(f"mix:{pair[0]}+{pair[1]}@{m}").folder)
    assert mixed.keys() == a.keys()
    for name in a:
        truth = (1 - m) * a[name].double() + m * b[name].double()
        torch.testing.assert_close(mixed[name].double(), truth, rtol=1e-6, atol=1e-8)
        if m in (0, 1):
            assert torch.equal(mixed[name], (a, b)[int(m)][name])


def test_mix_loads_as_a_policy_with_the_first_models_tokenizer(pair):
    a, b = pair
    ab, ba = (load_policy(f"mix:{x}+{y}@0.5", **LORA) for x, y in ((a, b), (b, a)))
    assert ab.tokenizer.chat_template is None and ba.tokenizer.chat_template
    assert (ab.prompt_format, ba.prompt_format) == ("plain", "chat")
    assert torch.equal(ab.head.weight, ba.head.weight) and ab.fingerprint != ba.fingerprint
    quantised = load_policy(f"mix:{a}+{b}@0.5", quantization="nf4", **LORA)
    assert quantised.fingerprint == ab.fingerprint and torch.equal(quantised.head.weight, ab.head.weight)


def test_mix_fingerprint_covers_both_models_and_the_share(pair):
    a, b = pair
    seen = {locate(f"mix:{x}+{y}@{m}").fingerprint for x, y, m in ((a, b, 0.2), (a, b, 0.3), (a, a, 0.2), (b, b, 0.2))}
    assert len(seen) == 4 and locate(f"mix:{a}+{b}@0.20").fingerprint in seen


def test_mix_stays_in_the_files_dtype(pair):
    for folder in pair:
        for path in folder.glob("model*.safetensors"):
            save_file({k: v.bfloat16() for k, v in load_file(path).items()}, path, metadata={"format": "pt"})
    a, b = (tensors(x) for x in pair)
    for name, value in tensors(locate(f"mix:{pair[0]}+{pair[1]}@0.3").folder).items():
        assert torch.equal(value, (0.7 * a[name].float() + 0.3 * b[name].float()).bfloat16())


def test_mix_of_unlike_files_is_refused(pair):
    a, b = pair
    state = load_file(a / "model.safetensors")
    full = dict(state)
    state["model.norm.weight"] = torch.ones(31)
    save_file(state, a / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match=r"model.norm.weight is \(31,\) torch.float32 in A and \(64,\)"):
        locate(f"mix:{a}+{b}@0.5")
    full.pop("model.norm.weight")
    save_file(full, a / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(InputError, match="only one of them has model.norm.weight"):
        locate(f"mix:{a}+{b}@0.5")


def test_mix_of_unlike_tokenizers_is_refused(pair, cache):
    a, b = pair
    path = b / "tokenizer.json"
    path.write_text(path.read_text().replace('"Z"', '"é"'))
    with pytest.raises(InputError, match="two tokenizers"):
        locate(f"mix:{a}+{b}@0.5")
    assert list(cache.iterdir()) == []  # nothing half-made stays


def test_a_damaged_cache_is_built_again_and_said(cache):
    built = []

    def build(folder):
        built.append(folder)
        (folder / "x.json").write_text("{}")

    for _ in range(2):
        assert cached("m", build) == cache / "m" and len(built) == 1
    damages = [
        lambda: (cache / "m" / "x.json").write_text("[]"),
        lambda: (cache / "m" / "x.json").unlink(),
        lambda: (cache / "m" / "extra.json").write_text("{}"),
        lambda: (cache / "m" / MANIFEST).write_text("torn"),
        lambda: edit_manifest(cache / "m" / MANIFEST, format=0),
    ]
    for n, damage in enumerate(damages, start=2):
        damage()
        with pytest.warns(UserWarning, match="building it again") as caught:
            cached("m", build)
        assert len(caught) == 1 and len(built) == n and (cache / "m" / "x.json").read_text() == "{}"
    assert [p.name for p in cache.iterdir()] == ["m"]


def edit_manifest(path, **changes):
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_failed_build_leaves_nothing(cache):
    def build(folder):
        (folder / "x.json").write_text("{}")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        cached("m", build)
    assert list(cache.iterdir()) == []


def test_another_process_may_be_faster(cache):
    def build(folder):
        (folder / "x.json").write_text("mine")
        if not (cache / "m").exists():
            cached("m", lambda other: (other / "x.json").write_text("theirs"))

    assert cached("m", build) == cache / "m" and (cache / "m" / "x.json").is_file()


def test_fingerprint_changes_with_every_file_that_decides_the_behaviour(pair):
    folder = pair[0]
    before = digest_model(folder)
    (folder / "notes.md").write_text("not read by anything")
    assert digest_model(folder) == before
    for name in ("model.safetensors", "config.json", "tokenizer.json", "generation_config.json"):
        path = folder / name
        old = path.read_bytes()
        path.write_bytes(old[:-1] + bytes([old[-1] ^ 1]))
        assert digest_model(folder) != before
        path.write_bytes(old)
    assert digest_model(folder) == before


def test_a_hub_id_that_cannot_be_had_is_one_line(monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(InputError, match="nobody/no-such-model is no folder here and could not be had") as caught:
        locate("nobody/no-such-model")
    assert "\n" not in str(caught.value)
