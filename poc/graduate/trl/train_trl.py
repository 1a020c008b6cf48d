"""Goes on with a run of the pilot kit in TRL's GRPOTrainer: its questions, rewards and loss, TRL's engines.

    python train_trl.py                                                              one GPU, or none
    accelerate launch --config_file accelerate_configs/fsdp.yaml train_trl.py        see README.md for the others

What may be changed is in grpo_config.json (every key of trl.GRPOConfig); the rewards and their options are in
config.yaml and come from the installed package `poc`. The adapter that this trains lies in output/ in the end.
"""

import argparse
import json
import os
from pathlib import Path

os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")

import torch
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer

from poc.config import RunConfig
from poc.configfile import load
from poc.graduate.adapter import KitRewards
from poc.graduate.prompts import read
from poc.graduate.settings import order, shared
from poc.models import Policy, load_policy
from poc.records import InputError, RunError

HERE = Path(__file__).resolve().parent
FSDP = os.environ.get("ACCELERATE_USE_FSDP") == "true"
PROCESSES = int(os.environ.get("WORLD_SIZE", 1))


def main() -> None:
    asked = arguments()
    config, origin = load(RunConfig, str(HERE / "config.yaml")), json.loads((HERE / "origin.json").read_text())
    questions = read(HERE / "prompts.jsonl")
    examples = [question.example for question in questions]
    args = training_arguments(asked, config)
    policy = start_model(asked, config, origin, args)
    ends(args, policy)
    rewards = KitRewards(config, examples, policy, step=origin["step"])
    trainer = GRPOTrainer(
        model=policy.model,  # wrapped by PEFT already, so no peft_config
        reward_funcs=rewards.functions(),
        args=args,
        train_dataset=dataset(config, questions, origin["step"], args.max_steps),
        processing_class=policy.tokenizer,
    )
    rewards.attach(trainer)
    as_in_the_kit(trainer, policy)
    trainer.train(resume_from_checkpoint=asked.resume)
    trainer.save_model()


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, help="optimizer steps, instead of max_steps in grpo_config.json")
    parser.add_argument("--quantization", choices=("nf4", "none"), help="instead of that in config.yaml")
    parser.add_argument("--vllm", action="store_true", help="sample with vLLM in the training processes")
    parser.add_argument("--resume", metavar="FOLDER", help="go on from output/checkpoint-N, as far as TRL can")
    return parser.parse_args()


def training_arguments(asked: argparse.Namespace, config: RunConfig) -> GRPOConfig:
    """grpo_config.json, with a step shared out among the processes: its size is that of the run, however many run."""
    settings = json.loads((HERE / "grpo_config.json").read_text())
    settings["output_dir"] = str(HERE / settings["output_dir"])
    settings |= {"max_steps": asked.steps} if asked.steps else {}
    completions = config.train.prompts_per_step * settings["num_generations"]
    settings = shared(settings, completions, PROCESSES)
    if asked.vllm:
        settings |= {"use_vllm": True, "vllm_mode": "colocate"}
    cuda = torch.cuda.is_available()
    bf16 = cuda and torch.cuda.is_bf16_supported(including_emulation=False)
    args = GRPOConfig(**{"bf16": bf16, "use_cpu": not cuda, **settings})
    if args.world_size != PROCESSES:  # each would train alone, on its share of the step
        raise InputError(f"{PROCESSES} processes were launched, but they do not work together: see README.md")
    return args


def start_model(asked: argparse.Namespace, config: RunConfig, origin: dict, args: GRPOConfig) -> Policy:
    """The run's start model with the adapter that it ended with. The kit loads them: lab: and wheel: are no Hub ids."""
    quantization = asked.quantization or config.quantization
    if FSDP and quantization != "none":
        raise InputError("FSDP shards the frozen weights instead of quantising them: give --quantization none")
    adapter = HERE / "adapter" if origin["step"] else None  # else a fresh one
    policy = load_policy(
        config.model, quantization=quantization, lora_rank=config.lora.rank, lora_alpha=config.lora.alpha,
        device=args.device, seed=config.train.seed, adapter=adapter,
    )  # fmt: skip
    if policy.fingerprint != origin["fingerprint"]:
        raise InputError(f"{config.model}: these weights are not those the run began with")
    if ":" in config.model:  # what PEFT writes beside the adapter must be a name that it can look up
        policy.model.peft_config["default"].base_model_name_or_path = policy.model.config._name_or_path
    return policy


def ends(args: GRPOConfig, policy: Policy) -> None:
    """Completions end where the kit's do, and consist of tokens that the tokenizer knows."""
    policy.model.generation_config.eos_token_id = sorted(policy.stop_ids)  # TRL reads it there; vLLM does not
    padding = list(range(policy.head.vocab_size, policy.head.weight.shape[0]))
    ours = {"stop_token_ids": sorted(policy.stop_ids)} if args.use_vllm else {"suppress_tokens": padding or None}
    args.generation_kwargs = ours | (args.generation_kwargs or {})


def dataset(config: RunConfig, questions: list, done: int, steps: int) -> Dataset:
    """The prompts in the order in which the kit would ask them. The golds stay out of it: the rewards look them up."""
    rows = [{"prompt": question.prompt, "id": question.example.id} for question in questions]
    return Dataset.from_list(rows).select(order(config, rows, done, steps))


def as_in_the_kit(trainer: GRPOTrainer, policy: Policy) -> None:
    """What GRPOTrainer does to a PEFT model and the kit does not."""
    if "ref" in policy.model.peft_config:  # with beta > 0 a copy of the adapter; the kit's reference has none
        policy.model.delete_adapter("ref")
    if not trainer.is_deepspeed_enabled:  # which keeps float32 copies itself
        for parameter in policy.trainable():  # bfloat16 beside NF4: small steps would be rounded away
            parameter.data = parameter.data.float()


if __name__ == "__main__":
    try:
        main()
    except (InputError, RunError) as error:
        raise SystemExit(f"train_trl.py: {error}") from None
