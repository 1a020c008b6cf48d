"""Random tiny policies of many architectures, with an adapter that does something."""

import torch
import transformers

from poc.lab import tokenizer
from poc.models import load_policy

COMMON = {
    "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16,
    "intermediate_size": 48, "max_position_embeddings": 256, "tie_word_embeddings": True, "initializer_range": 0.3,
}  # fmt: skip
WINDOW = 7  # shorter than prompts and completions of the tests
KINDS = {
    "Llama": ("LlamaConfig", "LlamaForCausalLM", COMMON),
    "Qwen2": ("Qwen2Config", "Qwen2ForCausalLM", COMMON),
    "Qwen3": ("Qwen3Config", "Qwen3ForCausalLM", COMMON),
    "Mistral": ("MistralConfig", "MistralForCausalLM", COMMON | {"sliding_window": WINDOW}),
    "Gemma2": ("Gemma2Config", "Gemma2ForCausalLM", COMMON | {"sliding_window": WINDOW}),
    "Gemma3": (
        "Gemma3TextConfig", "Gemma3ForCausalLM",
        COMMON | {"sliding_window": WINDOW, "layer_types": ["sliding_attention", "full_attention"] * 2,
                  "num_hidden_layers": 4},
    ),
    "GPT2": ("GPT2Config", "GPT2LMHeadModel", {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 256,
                                               "initializer_range": 0.3}),
    # Its window goes by another name.
    "GPTNeo": ("GPTNeoConfig", "GPTNeoForCausalLM", {
        "hidden_size": 32, "num_layers": 2, "attention_types": [[["global", "local"], 1]], "num_heads": 2,
        "intermediate_size": 48, "max_position_embeddings": 256, "window_size": 20, "initializer_range": 0.3}),
    # These cannot take the fast ways: positions from the mask alone; states of convolutions.
    "Bloom": ("BloomConfig", "BloomForCausalLM", {"hidden_size": 32, "n_layer": 2, "n_head": 2,
                                                  "initializer_range": 0.3}),
    "Lfm2": ("Lfm2Config", "Lfm2ForCausalLM", COMMON | {"layer_types": ["conv", "full_attention", "conv"],
                                                        "block_auto_adjust_ff_dim": False}),
}  # fmt: skip


def random_policy(kind: str, folder, quantization: str = "none", **other):
    """A policy of a random model of `kind`, saved in `folder`; B of its LoRA is not zero."""
    tok = tokenizer.build(chat=True)
    config, model, sizes = KINDS[kind]
    ids = {"eos_token_id": tok.eos_token_id, "pad_token_id": tok.pad_token_id, "bos_token_id": None}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        made = getattr(transformers, config)(vocab_size=len(tok), **ids, **sizes | other)
        getattr(transformers, model)(made).save_pretrained(folder)
    tok.save_pretrained(folder)
    policy = load_policy(str(folder), quantization=quantization, lora_rank=4, lora_alpha=8)
    return warm(policy)


def warm(policy, size: float = 0.05):
    """The same policy after some training, as it were."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for parameter in policy.trainable():
            parameter += size * torch.randn(parameter.shape, generator=generator)
    return policy
