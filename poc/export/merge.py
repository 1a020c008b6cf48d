"""The start model's own weights with the adapter in them, in 16 bits, as transformers loads a model.

    W' = round(W + (alpha / rank) B A)       W as it is stored, in float32 or 16 bits, never its 4-bit copy

The sum is in float32, one layer at a time, and rounded once. Head and embeddings have no adapter: tied ones stay tied.
Needs as much memory as the stored weights. Not here: the tokenizer, the check of what comes out (poc.export.parity).
"""

import math
from pathlib import Path

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from safetensors import safe_open
from transformers import AutoModelForCausalLM, GenerationConfig, PreTrainedModel

from poc.records import InputError

DTYPES = ("bfloat16", "float16")
BYTES = 2  # of a weight
FILE = "5GB"  # the most in one safetensors file; an index tells which is where


def size(base: Path) -> int:
    """Bytes that the weights of the model in `base` take in 16 bits, read from the files' headers."""
    total = 0
    for path in sorted(base.glob("model*.safetensors")):
        with safe_open(path, framework="pt") as file:
            total += sum(math.prod(file.get_slice(name).get_shape()) for name in file.keys())  # noqa: SIM118
    return BYTES * total


def write(base: Path, adapter: Path, dtype: str, settings: GenerationConfig, folder: Path) -> None:
    """config.json, generation_config.json and model*.safetensors in `folder`.

    Raises InputError for a weight that `dtype` cannot hold; OSError or SafetensorError when the disk is full.
    """
    model = merged(base, adapter, getattr(torch, dtype))
    for name, weight in model.named_parameters():
        if not weight.isfinite().all():
            raise InputError(f"--dtype {dtype}: {name} has a number that it cannot hold: take bfloat16")
    model.generation_config = settings
    model.save_pretrained(folder, max_shard_size=FILE)


@torch.no_grad()
def merged(base: Path, adapter: Path, dtype: torch.dtype) -> PreTrainedModel:
    """The whole model in `dtype`."""
    start = AutoModelForCausalLM.from_pretrained(base, dtype="auto", use_safetensors=True, trust_remote_code=False)
    model = PeftModel.from_pretrained(start, adapter)
    for layer in model.modules():
        if isinstance(layer, LoraLayer):
            weight = layer.get_base_layer().weight
            weight.data = (weight.data.float() + layer.get_delta_weight("default").float()).to(dtype)
    return model.unload().to(dtype)
