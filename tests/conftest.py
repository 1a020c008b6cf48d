"""Shared doubles: a random two-layer model of the lab's kind, saved as a folder like any other."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch: the workers share the cores

os.environ.setdefault("TRITON_INTERPRET", "1")  # before triton: its kernels run on the CPU (kernels/README.md: on CUDA)

import hypothesis
import pytest
import torch

hypothesis.settings.register_profile("kit", deadline=None)  # no timed tests: other work may have the cores
hypothesis.settings.load_profile("kit")


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory):
    """A folder with a random 2-layer Llama and the lab tokenizer (with its chat template)."""
    from transformers import LlamaConfig, LlamaForCausalLM

    from poc.lab import tokenizer

    folder = tmp_path_factory.mktemp("tiny")
    tok = tokenizer.build(chat=True)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = LlamaConfig(
            vocab_size=len(tok), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, num_key_value_heads=1,
            intermediate_size=48, max_position_embeddings=256, tie_word_embeddings=True,
            eos_token_id=tok.eos_token_id, pad_token_id=tok.pad_token_id, bos_token_id=None, initializer_range=0.4,
        )  # fmt: skip
        LlamaForCausalLM(config).save_pretrained(folder)
    tok.save_pretrained(folder)
    return folder


@pytest.fixture
def tiny_policy(tiny_folder):
    from poc.models import load_policy

    return load_policy(str(tiny_folder), quantization="none", lora_rank=4, lora_alpha=8)
