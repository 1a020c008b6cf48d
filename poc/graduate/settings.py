"""The run's settings in TRL's words, and how a step is shared out among processes.

TRL counts completions where the kit counts prompts; a generation batch is what one rollout holds. The normalisation of
advantages is not TRL's: poc.graduate.adapter does it as poc.objective does, so `scale_rewards` is none.
"""

from collections.abc import Sequence

from poc.config import RunConfig
from poc.graduate.origin import Origin
from poc.order import cycle_of, prompts_of_step
from poc.records import Example, InputError

OPTIMIZERS = {"adamw": "adamw_torch", "adamw8bit": "adamw_bnb_8bit"}


def grpo_config(origin: Origin) -> dict:
    """The keyword arguments of trl.GRPOConfig."""
    return _training(origin) | _sampling(origin.config) | _objective(origin.config)


def _training(origin: Origin) -> dict:
    train = origin.config.train
    return {
        "output_dir": "output",
        "max_steps": origin.steps,
        "learning_rate": train.learning_rate,
        "lr_scheduler_type": "constant",
        "warmup_steps": 0,
        "optim": OPTIMIZERS[train.optimizer],
        "weight_decay": train.weight_decay,
        "max_grad_norm": train.max_grad_norm,
        "per_device_train_batch_size": min(train.micro_batch, train.prompts_per_step * train.group_size),
        "gradient_checkpointing": train.recompute is not False,
        "disable_dropout": True,
        "seed": train.seed,
        "logging_steps": 1,
        "save_steps": train.checkpoint_every,
        "save_total_limit": 2,
        "report_to": "none",
    }


def _sampling(config: RunConfig) -> dict:
    train = config.train
    return {
        "num_generations": train.group_size,
        "generation_batch_size": rollout_size(config) * train.group_size,
        "num_iterations": train.inner_epochs,
        "max_completion_length": train.max_new_tokens,
        "temperature": train.temperature,
        "top_p": 1.0,
        "top_k": 0,
        "shuffle_dataset": False,
    }


def _objective(config: RunConfig) -> dict:
    return {
        "beta": config.train.kl,
        "use_bias_correction_kl": False,
        "epsilon": config.train.clip,
        "loss_type": "dapo",
        "scale_rewards": "none",
        "multi_objective_aggregation": "sum_then_normalize",
        "reward_weights": [1.0 if name in config.schedule else weight for name, weight in config.reward.items()],
    }


def rollout_size(config: RunConfig) -> int:
    """Prompts of one rollout."""
    return config.train.prompts_per_step * config.train.rollout_reuse


def shared(settings: dict, completions: int, processes: int) -> dict:
    """The settings with a step of so many completions shared out among processes, each getting whole groups.

    `per_device_train_batch_size` is the most at once; it becomes the largest number up to that which divides a
    process's share. Raises InputError where a group would be split between processes.
    """
    size = settings["num_generations"]
    share, rest = divmod(completions, processes)
    if rest or share % size:
        raise InputError(
            f"num_generations = {size}: {completions} completions a step are not whole groups for each of {processes} "
            f"processes: take a number of processes that divides {completions // size} prompts"
        )
    most = settings["per_device_train_batch_size"]
    at_once = max(number for number in range(1, min(most, share) + 1) if share % number == 0)
    return settings | {"per_device_train_batch_size": at_once, "gradient_accumulation_steps": share // at_once}


def order(config: RunConfig, examples: Sequence[Example], done: int, steps: int) -> list[int]:
    """Places in `examples` of the prompts that the rollouts of `steps` steps after `done` ask, in the kit's order."""
    places, size = range(len(examples)), rollout_size(config)
    rollouts = range(cycle_of(done + 1, config), cycle_of(done + steps, config) + 1)
    return [place for number in rollouts for place in prompts_of_step(places, size, config.train.seed, number)]
