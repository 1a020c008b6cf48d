"""A source becomes a trainable policy: a frozen, possibly NF4-quantised body with LoRA, and the LM head kept apart.

logits = softcap(hidden @ W^T + b). `Policy.body` gives hidden, `Policy.head` holds W, b and the cap, so that the loss
can be computed without logits (vocab_kernels.linear_token_stats). LoRA (Hu et al. 2021; on NF4: Dettmers et al. 2023):
W' = W + (alpha / rank) * B A in every linear layer of the body, never in the head. Not here: sampling, the optimizer.
"""

import copy
import json
import math
import warnings
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property, partial
from pathlib import Path

import torch
from bitsandbytes.nn import Linear4bit
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from peft.tuners.lora import LoraLayer
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor
from torch.utils.checkpoint import checkpoint
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig, PreTrainedModel
from transformers.utils.logging import disable_progress_bar

from poc.prompts import default_format, end_of_turn_ids
from poc.records import InputError
from poc.weights import Located, locate

ADAPTER = "adapter_model.safetensors"
NF4_BLOCK = 64
ROWS = 32  # that a laid out weight expects; it takes any number
disable_progress_bar()  # its bars would run into ours


LEAST = 2**14  # numbers of a weight: smaller ones gain nothing by another layout


@dataclass(frozen=True)
class Head:
    """weight [V, H] and bias [V] (or None), frozen. Token ids from `vocab_size` on are padding rows of the weight.

    `project`: [R, H] -> logits [R, `vocab_size`] before the cap, as fast as they can be had without a gradient.
    """

    weight: Tensor
    bias: Tensor | None
    softcap: float | None
    vocab_size: int
    project: Callable[[Tensor], Tensor] | None = None

    def logits(self, hidden: Tensor) -> Tensor:
        """[R, H] -> [R, `vocab_size`] before the cap."""
        if self.project:
            return self.project(hidden)
        return torch.nn.functional.linear(hidden, *self.real)

    @property
    def real(self) -> tuple[Tensor, Tensor | None]:
        """Weight and bias without padding rows."""
        return self.weight[: self.vocab_size], None if self.bias is None else self.bias[: self.vocab_size]


def laid_out(weight: Tensor, bias: Tensor | None) -> Callable[[Tensor], Tensor] | None:
    """x -> x W^T + b on a copy of W in oneDNN's own layout, made once instead of at every call; no gradients.

    On two cores 1.4 to 2.5 times as fast for 32 rows. None where the copy gains nothing: on a card, in other than
    float32, for small weights, or in a torch without oneDNN.
    """
    usable = weight.device.type == "cpu" and weight.dtype == torch.float32 and torch.backends.mkldnn.is_available()
    if not usable or weight.numel() < LEAST:
        return None
    copy = torch.ops.mkldnn._reorder_linear_weight(weight.detach().contiguous(), ROWS)
    return lambda x: torch.ops.mkldnn._linear_pointwise(x, copy, bias, "none", [], "")


@dataclass
class Policy:
    """A causal LM with LoRA. `stop_ids`: every token that ends an answer. `fingerprint`: SHA-256 of the start model."""

    model: PeftModel
    tokenizer: object
    source: str
    fingerprint: str
    head: Head
    stop_ids: frozenset[int]
    device: torch.device
    dtype: torch.dtype
    prompt_format: str  # the default one: bare, plain or chat
    shares_prefix: bool = True  # a cache can be expanded, selected and joined (poc.decode); see poc.abilities
    packs: bool = True  # several completions behind one prompt in one sequence (poc.packing); see poc.abilities
    notes: tuple[str, ...] = ()  # what the user should hear once about this architecture

    @cached_property
    def windows(self) -> dict[str, int | None]:
        """Kinds of layers and the window of each; None: it sees everything before it."""
        config = self.model.get_base_model().config.get_text_config()
        window = getattr(config, "sliding_window", None)
        kinds = getattr(config, "layer_types", None) or ["sliding_attention" if window else "full_attention"]
        return {kind: window if kind == "sliding_attention" else None for kind in kinds}

    @cached_property
    def attention_cost(self) -> float:
        """FLOPs of attention a token and key (4 n d a layer) over FLOPs of the layers a token (2 a weight)."""
        config = self.model.get_base_model().config.get_text_config()
        heads = getattr(config, "num_attention_heads", 1)
        size = heads * (getattr(config, "head_dim", None) or self.head.weight.shape[1] // heads)
        weights = sum(module.in_features * module.out_features for module in self.adapted())
        return 4 * size * len(self.layers()) / (2 * weights)

    def body(self, input_ids, attention_mask=None, position_ids=None, past_key_values=None, use_cache=False):
        """input_ids [B, L] -> (hidden states after the final norm [B, L, H], past_key_values). Computes no logits."""
        out = self.model.get_base_model().get_decoder()(
            input_ids=input_ids, attention_mask=attention_mask, position_ids=position_ids,
            past_key_values=past_key_values, use_cache=use_cache,
        )  # fmt: skip
        return out.last_hidden_state, out.past_key_values if use_cache else None

    @contextmanager
    def adapter_off(self):
        """Inside, the policy is the start model. Raises RuntimeError inside `merged`."""
        if any(module.merged for module in self.adapted()):
            raise RuntimeError("the adapter is merged into the weights: it cannot be switched off here")
        with self.model.disable_adapter():
            yield

    @property
    def merges(self) -> bool:
        """Whether `merged` merges.

        A 4-bit weight cannot take the adapter up, and a 16-bit one would round it away: what is sampled would not be
        what is scored.
        """
        return self.dtype == torch.float32 and not any(
            isinstance(module.get_base_layer(), Linear4bit) for module in self.adapted()
        )

    @contextmanager
    def merged(self):
        """Inside, W + (alpha / rank) B A is computed once for each layer and not with every token; no gradients.

        On a CPU the sum, and the head, are laid out for fast products as well (`laid_out`). The weights themselves come
        back, not what is left after a subtraction. Takes a second copy of the adapted weights meanwhile. Where nothing
        can be merged, or all is, it does nothing.
        """
        layers = [] if not self.merges else [module for module in self.adapted() if not module.merged]
        bases, head = [module.get_base_layer() for module in layers], self.head
        originals = [base.weight.data for base in bases]
        try:
            with torch.no_grad():
                for module, base in zip(layers, bases, strict=True):
                    whole = base.weight.data + module.get_delta_weight("default")
                    if product := laid_out(whole, base.bias):
                        base.forward = product
                    else:
                        base.weight.data = whole
                    module.merged_adapters.append("default")
                if layers:
                    self.head = replace(head, project=laid_out(*head.real))
            yield
        finally:
            self.head = head
            for module, base, original in zip(layers, bases, originals, strict=True):
                vars(base).pop("forward", None)  # the class's own is there again
                base.weight.data = original
                module.merged_adapters.clear()

    @contextmanager
    def recomputing(self, wanted: bool = True):
        """Inside, a layer keeps its input only and is computed again in the backward pass (gradient checkpointing)."""
        layers = [layer for layer in self.layers() if wanted and "forward" not in vars(layer)]
        try:
            for layer in layers:
                layer.forward = partial(checkpoint, layer.forward, use_reentrant=False, preserve_rng_state=False)
            yield
        finally:
            for layer in layers:
                vars(layer).pop("forward", None)  # the class's own is there again

    def layers(self) -> torch.nn.ModuleList:
        """The body's layers, whatever the architecture calls them."""
        body = self.model.get_base_model().get_decoder()
        return max((m for m in body.modules() if isinstance(m, torch.nn.ModuleList)), key=len)

    def adapted(self) -> list[LoraLayer]:
        return [module for module in self.model.modules() if isinstance(module, LoraLayer)]

    def trainable(self) -> list[torch.nn.Parameter]:
        return [p for p in self.model.parameters() if p.requires_grad]

    def reset_adapter(self, seed: int) -> None:
        """A fresh adapter: A uniform as in nn.Linear, B zero, so that the policy is the start model again.

        The same `seed` gives the same adapter on every device: the draws are made on the CPU, from their own generator.
        """
        generator = torch.Generator().manual_seed(seed)
        for module in self.adapted():
            a, b = module.lora_A["default"].weight, module.lora_B["default"].weight
            fresh = torch.empty(a.shape)
            torch.nn.init.kaiming_uniform_(fresh, a=math.sqrt(5), generator=generator)
            with torch.no_grad():
                a.copy_(fresh)
                b.zero_()

    def save_adapter(self, folder: str | Path) -> None:
        """Write adapter_model.safetensors and adapter_config.json, as PEFT reads them, the same bytes each time."""
        Path(folder).mkdir(parents=True, exist_ok=True)
        state = get_peft_model_state_dict(self.model, save_embedding_layers=False)
        state = {k: v.detach().cpu().contiguous() for k, v in state.items()}
        (Path(folder) / ADAPTER).write_bytes(save(state, metadata={"format": "pt"}))  # a full disk is an OSError
        config = copy.copy(self.model.peft_config["default"])
        config.inference_mode = True
        config.target_modules = sorted(config.target_modules)  # a set: its order changes from process to process
        config.save_pretrained(str(folder))

    def load_adapter(self, folder: str | Path) -> None:
        """The adapter that `save_adapter` wrote, exactly. Raises InputError where it does not fit this policy."""
        _load_adapter(self.model, Path(folder))


def load_policy(
    source: str, *, quantization: str | None = None, lora_rank: int, lora_alpha: float, device=None, seed: int = 0,
    adapter: str | Path | None = None,
) -> Policy:  # fmt: skip
    """Load `source` (see poc.sources) as a policy in eval mode; `adapter`: a folder that `save_adapter` wrote.

    quantization: "nf4" | "none" | None (nf4 on CUDA, none on the CPU). The fresh LoRA depends on `seed` only, and no
    global random state changes. Raises InputError for a source, an adapter or an architecture that cannot be used.
    """
    located = locate(source)
    device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
    dtype = _dtype(device)
    tokenizer = AutoTokenizer.from_pretrained(located.folder, trust_remote_code=False)
    base = _base_model(source, located, device, dtype, quantization or ("nf4" if device.type == "cuda" else "none"))
    stop_ids = _stop_ids(source, base, tokenizer)
    head = _head(source, base, tokenizer)
    with _known(source, base):
        model = _with_lora(base, source, located, lora_rank, lora_alpha)
        style = default_format(source, tokenizer)
        policy = Policy(model, tokenizer, source, located.fingerprint, head, stop_ids, device, dtype, style)
        policy.reset_adapter(seed)
        if adapter is not None:
            policy.load_adapter(adapter)
        _check_head(policy)
        from poc.abilities import check  # built on this module

        return check(policy)


@contextmanager
def _known(source: str, base: PreTrainedModel):
    """An architecture may answer with any error to what it does not know (Mamba's to an adapter): that is said."""
    try:
        yield
    except InputError:
        raise
    except (AttributeError, IndexError, KeyError, NotImplementedError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:160]
        raise InputError(
            f"model: {source} ({base.config.model_type}) is of an architecture that this kit cannot train: {reason}"
        ) from error


def _dtype(device: torch.device) -> torch.dtype:
    if device.type != "cuda":
        return torch.float32
    return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16


def _base_model(source: str, located: Located, device, dtype, quantization: str) -> PreTrainedModel:
    """The causal LM in `dtype` on `device`. Raises InputError when it cannot be loaded whole."""
    nf4 = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=_kept_whole(located) if device.type == "cpu" and quantization == "nf4" else None,
    )  # fmt: skip
    try:
        model, info = AutoModelForCausalLM.from_pretrained(
            located.folder, dtype=dtype, device_map={"": device}, use_safetensors=True, trust_remote_code=False,
            quantization_config=nf4 if quantization == "nf4" else None, output_loading_info=True,
        )  # fmt: skip
    except (OSError, ValueError, KeyError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(f"model: {source} cannot be loaded as a causal language model: {reason}") from error
    if info["missing_keys"]:  # transformers would start them at random
        raise InputError(f"model: {source}: the weights lack {sorted(info['missing_keys'])[0]}: save the model again")
    for module in model.modules():
        if isinstance(module, Linear4bit):  # repacked in eval mode (AVX512-BF16), it would lose its gradient
            module.support_avx512bf16_for_cpu = False
    return model


def _kept_whole(located: Located) -> list[str]:
    """The head, and what bitsandbytes 0.50 would misread on the CPU: layers whose rows are not whole blocks of 64."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(located.folder))
    linear = {name: module for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    head = model.get_output_embeddings()
    return [name for name, module in linear.items() if module is head or module.in_features % NF4_BLOCK]


def _with_lora(base, source: str, located: Located, rank: int, alpha: float) -> PeftModel:
    """LoRA in float32 on every linear layer but the head.

    Of prepare_model_for_kbit_training only the freezing is wanted, and get_peft_model does it: casting the norms, the
    embeddings and the head to float32 doubles the memory of a large vocabulary (the norms compute in float32 anyway),
    and inputs that require gradients serve gradient checkpointing only.
    """
    config = LoraConfig(
        r=rank, lora_alpha=alpha, lora_dropout=0.0, bias="none", task_type="CAUSAL_LM", target_modules="all-linear"
    )
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():  # PEFT draws a start that reset_adapter replaces
        warnings.filterwarnings("ignore", message=".*is_gradient_checkpointing.*")  # between PEFT and transformers
        model = get_peft_model(base, config, autocast_adapter_dtype=True)
    saved = model.peft_config["default"]
    saved.base_model_name_or_path, saved.revision = source, located.revision
    return model.eval()  # dropout would make the policy ratio differ from 1 before the first step


def _load_adapter(model: PeftModel, folder: Path) -> None:
    """Raises InputError unless the adapter has this model's rank, alpha, parameter names and shapes."""
    try:
        state = load_file(folder / ADAPTER)
        saved = json.loads((folder / "adapter_config.json").read_text())
    except (OSError, ValueError, SafetensorError) as error:
        raise InputError(
            f"adapter: {folder} holds no readable adapter ({error}): give a folder with {ADAPTER}"
        ) from None
    config = model.peft_config["default"]
    for name, ours in (("r", config.r), ("lora_alpha", config.lora_alpha)):
        if saved.get(name) != ours:
            raise InputError(
                f"adapter: {folder} has {name} {saved.get(name)}, the configuration {ours}: make them equal"
            )
    expected = {k: v.shape for k, v in get_peft_model_state_dict(model, save_embedding_layers=False).items()}
    found = {k: v.shape for k, v in state.items()}
    if wrong := sorted(k for k in expected.keys() | found.keys() if expected.get(k) != found.get(k)):
        raise InputError(
            f"adapter: {folder} does not fit this model, first at {wrong[0]}: load the model it was made for"
        )
    set_peft_model_state_dict(model, state)


def _head(source: str, base: PreTrainedModel, tokenizer) -> Head:
    linear = base.get_output_embeddings()
    if linear is None or not linear.weight.is_floating_point():
        raise InputError(f"model: {source} has no LM head in floating point: choose another model")
    bias = getattr(linear, "bias", None)
    softcap = getattr(base.config.get_text_config(), "final_logit_softcapping", None)
    size = min(len(tokenizer), linear.weight.shape[0])
    return Head(linear.weight.detach(), None if bias is None else bias.detach(), softcap, size)


def _stop_ids(source: str, base: PreTrainedModel, tokenizer) -> frozenset[int]:
    """Ends of text and of turn: a base model's generation config may not name the chat's end token, and vice versa."""
    ends = base.generation_config.eos_token_id if base.generation_config else None
    ends = list(ends) if isinstance(ends, list | tuple) else [ends]
    ids = frozenset(i for i in (*ends, tokenizer.eos_token_id, *end_of_turn_ids(tokenizer)) if i is not None)
    if not ids:
        raise InputError(
            f"model: {source} has no token that ends an answer: set eos_token_id in generation_config.json"
        )
    return ids


@torch.no_grad()
def _check_head(policy: Policy) -> None:
    """Refuse logits that hidden @ head does not reproduce (Cohere and Granite scale theirs) or that are not finite."""
    ids = torch.arange(min(8, policy.head.vocab_size), device=policy.device)[None]
    hidden, _ = policy.body(ids)
    ours = torch.nn.functional.linear(hidden, policy.head.weight, policy.head.bias)
    if cap := policy.head.softcap:
        ours = cap * torch.tanh(ours / cap)
    theirs = policy.model(ids).logits
    if not theirs.isfinite().all():
        raise InputError(
            f"model: {policy.source} gives logits that are not finite in {policy.dtype}: use another model"
        )
    tolerance = 1e-3 if policy.dtype == torch.float32 else 5e-2
    if (ours - theirs).abs().max() > tolerance * theirs.abs().max():
        raise InputError(
            f"model: {policy.source}: its logits are not hidden @ head (model_type "
            f"{policy.model.config.model_type}): this kit does not know this architecture"
        )
