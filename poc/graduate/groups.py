"""What TRL hands to a reward function becomes the Groups of Episodes that the kit's rewards are functions of.

TRL repeats a prompt num_generations times, side by side, and each process gets a piece of that row: whole groups, if
its piece is a multiple of num_generations, else an error. Texts are made of the tokens as poc.rollout makes them.
"""

from collections.abc import Sequence
from dataclasses import replace

from poc.config import RunConfig
from poc.graduate.statistics import rows_of_logits, statistics
from poc.models import Policy
from poc.order import cycle_of, derived_seed
from poc.records import Episode, Example, Group
from poc.scoring.pool import grade

INTERNAL = ("self_certainty", "token_entropy", "trajectory_entropy")  # rewards that need token statistics
UNREAD = (*INTERNAL, "random")  # rewards that look at no answer
GRADING_SECONDS = 10.0  # that completions which are slow to judge may take together


class Groups:
    """`size` and `temperature` are those of the configuration until a trainer is attached."""

    def __init__(self, config: RunConfig, examples: Sequence[Example], policy: Policy) -> None:
        self.config, self.policy = config, policy
        self.examples = {example.id: example for example in examples}
        self.size, self.temperature = config.train.group_size, config.train.temperature
        self.trainer = None  # where its engine shards the weights
        self.prompts: dict[str, tuple[int, ...]] = {}

    def attach(self, trainer) -> None:
        self.size, self.temperature = trainer.num_generations, trainer.temperature
        self.trainer = trainer if is_sharded(trainer) else None

    def of(
        self, prompts: Sequence[str], completions: Sequence[Sequence[int]], ids: Sequence[str], step: int
    ) -> list[Group]:
        """Graded groups of completions of the questions `ids`, drawn for `step`; ValueError for a split group."""
        self._check(ids)
        examples, asked = [self.examples[name] for name in ids], [self._tokens(prompt) for prompt in prompts]
        episodes = self._graded(examples, self._episodes(asked, completions))
        seed = derived_seed(self.config.train.seed, "rollout", cycle_of(step, self.config))
        starts = range(0, len(ids), self.size)
        return [Group(examples[i], asked[i], tuple(episodes[i : i + self.size]), seed) for i in starts]

    def _check(self, ids: Sequence[str]) -> None:
        chunks = [ids[i : i + self.size] for i in range(0, len(ids), self.size)]
        if any(len(chunk) < self.size or len(set(chunk)) > 1 for chunk in chunks):
            raise ValueError(
                f"num_generations = {self.size}, but the {len(ids)} completions that this process was given are not "
                "whole groups side by side: generation_batch_size / processes must be a multiple of num_generations"
            )

    def _tokens(self, prompt: str) -> tuple[int, ...]:
        """As TRL reads the text."""
        if prompt not in self.prompts:
            self.prompts[prompt] = tuple(self.policy.tokenizer(text=prompt)["input_ids"])
        return self.prompts[prompt]

    def _episodes(self, prompts: Sequence[tuple[int, ...]], completions: Sequence[Sequence[int]]) -> list[Episode]:
        if not any(name in INTERNAL for name in self.config.reward):
            return [self._episode(tokens) for tokens in completions]
        rows, model = self.config.train.micro_batch, self.trainer and self.trainer.model
        if model:
            rows = rows_of_logits(self.policy, self.trainer.max_completion_length, rows)
        stats = statistics(self.policy, prompts, completions, temperature=self.temperature, rows=rows, model=model)
        return [self._episode(tokens, *map(tuple, row)) for tokens, row in zip(completions, stats, strict=True)]

    def _episode(self, tokens: Sequence[int], logp=(), entropy=(), self_certainty=()) -> Episode:
        finished = bool(tokens) and tokens[-1] in self.policy.stop_ids
        shown = tokens[:-1] if finished else tokens
        text = self.policy.tokenizer.decode(shown, skip_special_tokens=True)
        return Episode(tuple(tokens), text, finished, logp, entropy, self_certainty)

    def _graded(self, examples: Sequence[Example], episodes: Sequence[Episode]) -> Sequence[Episode]:
        """With answers and, where there is a gold, verdicts, if a reward looks at them."""
        if all(name in UNREAD for name in self.config.reward):
            return episodes
        grades = grade(examples, [episode.text for episode in episodes], budget=GRADING_SECONDS)
        return [replace(episode, **found._asdict()) for episode, found in zip(episodes, grades, strict=True)]


def is_sharded(trainer) -> bool:
    """Whether a process holds a part of the weights only, so that they are whole inside the model's forward alone."""
    plugin = getattr(trainer.args, "deepspeed_plugin", None)
    return trainer.is_fsdp_enabled or (plugin is not None and plugin.zero_stage == 3)
