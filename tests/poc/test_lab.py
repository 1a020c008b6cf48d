"""The embedded pair: small, loadable, honest about its hold-out, made the same way twice."""

import string
from itertools import islice
from random import Random
from statistics import fmean

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from poc import pilot, tasks
from poc.config import RunConfig
from poc.configfile import load
from poc.evaluate import evaluate
from poc.lab import corpus, tokenizer
from poc.lab.__main__ import fit, new_model
from poc.models import load_policy
from poc.scoring import sandbox
from poc.sources import LAB
from poc.tasks import DOMAINS, split_of

PAIR = ("base", "instruct")
MEASURED = [name for name in tasks.DOMAINS if name != "code" or sandbox.level() != "none"]


def test_weights_are_small_and_load_as_any_model_does():
    files = [LAB / name / "model.safetensors" for name in PAIR]
    assert sum(file.stat().st_size for file in files) <= 6_000_000
    for name in PAIR:
        model = AutoModelForCausalLM.from_pretrained(LAB / name)
        assert model.config.model_type == "llama" and model.num_parameters() <= 1_500_000
        tok = AutoTokenizer.from_pretrained(LAB / name)
        assert tok.vocab_size == model.config.vocab_size and bool(tok.chat_template) == (name == "instruct")


def test_tokenizer_is_one_printable_character_a_token():
    tok = tokenizer.build(chat=False)
    text = "".join(sorted(set(string.printable) - set("\t\r\v\f")))
    assert len(tok.encode(text)) == len(text) and tok.decode(tok.encode(text)) == text
    assert tok.encode("é") == [tok.unk_token_id] and tok.encode("<eos>") == [tok.eos_token_id]


def test_the_corpus_holds_no_hold_out_question():
    """Every text it draws is a train-split problem, answered right."""
    rng = Random(0)
    keys = {}
    for domain, level in corpus.SIX:
        keys |= {p.question: p.key for p in (DOMAINS[domain].make(Random(i), level) for i in range(3000))}
    seen = [corpus.draw(rng, corpus.SIX, corpus.base_text)[0].rstrip("\n") for _ in range(3000)]
    known = [keys[question] for question in seen if question in keys]
    assert len(known) > 300 and {split_of(key) for key in known} == {"train"}


def test_instruct_text_is_what_the_chat_template_makes():
    tok = tokenizer.build(chat=True)
    prompt, completion = corpus.instruct_text("math", 0, "1+2=?", "1+2=3 #3")
    messages = [{"role": "system", "content": DOMAINS["math"].INSTRUCTION}, {"role": "user", "content": "1+2=?"}]
    assert tok.apply_chat_template(messages, tokenize=False, add_generation_prompt=True) == prompt
    assert completion.endswith("<eos>")


def test_training_is_deterministic():
    tok = tokenizer.build(chat=False)
    models = []
    for _ in range(2):
        model = new_model(tok)
        fit(model, corpus.batches(tok, corpus.base_text, corpus.SIX, Random(2), 4), steps=3, learning_rate=1e-3)
        models.append(model)
    for one, two in zip(*(m.parameters() for m in models), strict=True):
        assert torch.equal(one, two)
    assert not torch.equal(next(new_model(tok).parameters()), next(model.parameters()))


def test_batches_train_the_completion_only():
    tok = tokenizer.build(chat=False)
    for ids, labels in islice(corpus.batches(tok, corpus.base_text, corpus.SIX, Random(3), 8), 4):
        for row, label in zip(ids.tolist(), labels.tolist(), strict=True):
            kept = [token for token in label if token != -100]
            text = tok.decode(row[: row.index(tok.eos_token_id) + 1])
            assert tok.decode(kept) == text.rpartition("\n")[2] and kept[-1] == tok.eos_token_id


@pytest.fixture(scope="module")
def measured():
    """(domain, model) -> summary; level 0, 96 hold-out questions, 2 samples."""
    out = {}
    for name in PAIR:
        policy = load_policy(f"lab:{name}", quantization="none", lora_rank=1, lora_alpha=1)
        for domain in MEASURED:
            options = [f"model=lab:{name}", f"data.domain={domain}", "evaluate.samples=2"]
            job = pilot.Job(LAB, name, None, pilot.resolve(load(RunConfig, None, options)))
            encode, _ = pilot.prompt_encoder(job, policy)
            examples = tasks.generate(domain, 0, "holdout", 96, seed=0)
            out[domain, name] = evaluate(policy, examples, job.config, step=0, encode=encode)["summary"]
    return out


@pytest.mark.parametrize("name", PAIR)
@pytest.mark.parametrize("domain", MEASURED)
def test_each_model_is_neither_helpless_nor_done_in_any_domain(measured, domain, name):
    """10 to 80 % at temperature 1 on 256 questions (README beside the models); 96 here, so a little wider."""
    summary = measured[domain, name]
    assert 0.07 < summary["accuracy"]["value"] < 0.86
    assert summary["format"]["value"] > (0.6 if domain == "code" else 0.9)  # half-built code is no expression
    assert summary["truncated"]["value"] < 0.05


def test_instruct_is_surer_and_better_over_all(measured):
    def mean(metric, name):
        return fmean(measured[domain, name][metric]["value"] for domain in MEASURED)

    assert mean("entropy", "instruct") < mean("entropy", "base")
    assert mean("accuracy", "instruct") > mean("accuracy", "base")
