"""A run's configuration with every "null: it depends" decided: by the model, the domains, the rewards."""

from poc import rewards, sources, tasks
from poc.config import FORMATS, RunConfig

LEARNING_RATE = {True: 2e-4, False: 3e-5}  # is a lab model: those are so small that an adapter must move far


def resolve(config: RunConfig) -> RunConfig:
    """The configuration with every "None: it depends" decided."""
    lab = sources.first_part(config.model) in sources.LABS
    decided = {
        "train": {
            "learning_rate": config.train.learning_rate or LEARNING_RATE[lab],
            "max_new_tokens": config.train.max_new_tokens or _longest_answer(config.data),
        },
        "prompt": {"instruction": _instruction(config)},
        "semantic": {"cluster": _cluster(config)},
    }
    return config.model_copy(
        update={key: getattr(config, key).model_copy(update=values) for key, values in decided.items()}
    )


def _longest_answer(data) -> int:
    """Tokens for an answer to whatever is trained on or measured."""
    if data.own:
        return tasks.own.MAX_NEW_TOKENS
    levels = [*data.trained_levels, *data.ood_levels]
    names = {*data.trained_domains, *data.measure}
    return max(tasks.DOMAINS[name].max_new_tokens(level) for name in names for level in levels)


def _instruction(config: RunConfig) -> str | None:
    """The one instruction of the run; None where the questions' domains or levels have different ones."""
    if config.prompt.instruction is not None:
        return config.prompt.instruction
    if "knights_knaves" in config.reward and rewards.layout(config) == "tags":
        return tasks.logic.TAGS_INSTRUCTION
    if config.data.own:
        return tasks.own.INSTRUCTION if config.data.format is None else None
    kinds = {*tasks.kinds_of(config.data), *((name, config.data.level) for name in config.data.measure)}
    told = {tasks.DOMAINS[name].instruction(level) for name, level in kinds}
    return told.pop() if len(told) == 1 else None


def _cluster(config: RunConfig) -> str:
    """math if all the domains compare their answers so; else exact: `read` has spelled equal answers alike."""
    data = config.data
    if config.semantic.cluster != "auto":
        return config.semantic.cluster
    names = data.trained_domains if not data.own else [FORMATS[data.format]] if data.format else [None]
    found = {tasks.own.CLUSTER if name is None else tasks.DOMAINS[name].CLUSTER for name in names}
    return found.pop() if len(found) == 1 else "exact"
