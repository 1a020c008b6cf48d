"""The kit's rewards as `reward_funcs` of TRL's GRPOTrainer.

    TRL's (prompts, completions, completion_ids, columns) -> Groups -> meanings -> rewards -> advantages of each part

The advantages are those of poc.objective: each part is normalised within its group here and comes back with mean 0. TRL
adds the parts with `reward_weights`; it must not scale them again (`scale_rewards: none`). Scheduled weights, and the
prompts on which a part does not speak, are in them as well. What the rewards were before is logged as raw/NAME.

Gold answers are looked up here by the column `id` and shown to the rewards that need labels, to no other. An exception
is never a reward of 0: it ends the run. Not here: switches (poc.graduate.origin), the guard, evaluation.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

from poc import pilot, rewards
from poc.config import NEED_LABELS, RunConfig
from poc.graduate.groups import Groups
from poc.models import Policy
from poc.objective import normalise
from poc.records import Example, Group, InputError
from poc.rewards import hybrid
from poc.rewards.meanings import with_meanings
from poc.trainer import reward_tables

SEMANTIC = ("semantic_entropy", "majority_vote")

RewardFunction = Callable[..., list[float]]


class KitRewards:
    """`examples`: the training questions, with the labels that may be seen; `step`: steps taken before TRL's first.

    `normalised` False: the raw rewards, NaN where a part does not speak, for TRL's own ways to normalise.
    """

    def __init__(
        self, config: RunConfig, examples: Sequence[Example], policy: Policy, step: int = 0, normalised: bool = True
    ) -> None:
        if config.switch or (config.schedule and not normalised):
            raise InputError("switch, or schedule without normalised rewards: the weights are constant in TRL")
        self.config, self.step, self.normalised = config, step, normalised
        self.rewards = {name: _blinded(name, reward) for name, reward in rewards.select(config).items()}
        self.semantic = any(name in SEMANTIC for name in config.reward)
        self.cluster = pilot.clustering(config, policy) if self.semantic else None
        self.groups = Groups(config, examples, policy)
        self.seen: tuple[Sequence, list[Group]] = (), []  # the completions of TRL's last call, and their groups

    def functions(self) -> list[RewardFunction]:
        """One for each part, in the order of `reward_weights`; its name is the reward's."""
        return [self._function(name) for name in self.rewards]

    def attach(self, trainer) -> None:
        """Once the trainer is made: its group size and temperature count, and the engine that it runs in."""
        self.groups.attach(trainer)
        if self.groups.trainer and self.semantic and self.config.semantic.judge == "policy":
            raise InputError("semantic.judge: policy cannot judge where its weights are sharded: use an NLI model")

    def _function(self, name: str) -> RewardFunction:
        def reward(prompts, completions, completion_ids, id, trainer_state, log_metric=None, **_) -> list[float]:
            step = self.step + trainer_state.global_step + 1
            return self._paid(name, self._groups(prompts, completion_ids, id, step), step, log_metric)

        reward.__name__ = name  # TRL logs under it
        return reward

    def _groups(self, prompts, completion_ids, ids, step: int) -> list[Group]:
        """Made once for all the functions of one call."""
        if self.seen[0] is not completion_ids:
            groups = self.groups.of(prompts, completion_ids, ids, step)
            self.seen = completion_ids, [with_meanings(g, self.cluster) if self.cluster else g for g in groups]
        return self.seen[1]

    def _paid(self, name: str, groups: list[Group], step: int, log_metric) -> list[float]:
        routed = self.config.label_fraction is not None
        tables = reward_tables({name: self.rewards[name]}, {name: 1.0}, groups, self.config, routed)
        part, spoken = (table[name] for table in tables)  # [P, G], [P, 1]
        heard = part[spoken[:, 0] != 0]
        if log_metric and len(heard):
            log_metric(f"raw/{name}", heard.mean().item())
        if self.normalised:
            return (self._volume(name, step) * spoken * normalise(part)).flatten().tolist()
        return part.where(spoken != 0, float("nan")).flatten().tolist()

    def _volume(self, name: str, step: int) -> float:
        """The weight of a part whose weight moves; a constant one is in `reward_weights`."""
        if name not in self.config.schedule:
            return 1.0
        options = self.config.train.steps, self.config.reward, self.config.schedule
        return hybrid.weights_at(step, *options, None)[name]


def _blinded(name: str, reward: rewards.Reward) -> rewards.Reward:
    return reward if name in NEED_LABELS else lambda group: reward(_without_gold(group))


def _without_gold(group: Group) -> Group:
    episodes = tuple(replace(episode, verdict=None) for episode in group.episodes)
    return replace(group, example=replace(group.example, answer=None, check=""), episodes=episodes)
