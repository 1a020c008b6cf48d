"""What surrounds the loop of poc.trainer: evaluation, the guard's consequences, too little memory, checkpoints.

It decides nothing about learning: the same steps follow whatever is evaluated, saved or shown, until the guard ends
the run. Going back is to the best checkpoint (poc.guard.best_step) that is still what its manifest says; it is then
measured again, and what the hold-out says of it is written to evaluations/kept/.
"""

import gc
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from typing import NamedTuple, TypeVar

import torch
from torch import Tensor

from poc import budget, checkpoint, foresight, guard, memory
from poc.checkpoint import State
from poc.config import RunConfig
from poc.display import Watch, foretold
from poc.evaluate import View, canary_record
from poc.models import Policy
from poc.order import cycle_of, derived_seed, prompts_of_step
from poc.parallel import the_world
from poc.records import Example, Group, NonFinite, RunError
from poc.rewards import hybrid
from poc.rollout import rollout
from poc.runfolder import RunFolder
from poc.update import UpdateRecord, gradients, take_step

CANARY, KEPT, GAP = "canary", "kept", "gap"  # views beside the hold-out
CONTROLS = ("format", "random")  # rewards that pay neither for certainty nor for right answers
HALVINGS = 2
Measure = Callable[..., dict]  # (view, step, config, again=False): the evaluation of the policy as it is
T = TypeVar("T")


class Ending(NamedTuple):
    """How a run ended: done, stopped (by the guard) or interrupted; why early; the step that was gone back to."""

    status: str
    reason: str | None = None
    kept: int | None = None


class Session:
    """One process's work on one run."""

    def __init__(
        self, config: RunConfig, policy: Policy, folder: RunFolder, views: Sequence[View], measure: Measure,
        watch: Watch,
    ) -> None:  # fmt: skip
        self.config, self.policy, self.folder = config, policy, folder
        self.views = [view for view in views if view.name != GAP]
        self.gap = next((view for view in views if view.name == GAP), None)  # solver and verifier (poc.gap)
        self.measure, self.watch = measure, watch
        self.longest = 1  # tokens of the longest prompt
        self.prompts: Sequence[int] = ()  # tokens of each prompt that is trained on
        self.saved: int | None = None  # step of the last checkpoint
        self.moved: int | None = None  # step of the last optimizer step
        self.saving = 0.0  # seconds of the last checkpoint
        self.share: float | None = None  # of the completions that are trained on, where the loop knows it

    def begin(self, optimizer, prompt_tokens: int, prompts: Sequence[int]) -> State:
        """Where the folder's run stands; a new run gets the checkpoint of its start. `prompt_tokens`: the longest."""
        self.longest, self.prompts = prompt_tokens, prompts
        state = self.folder.restore(self.policy, optimizer, self.watch.say)
        if state is None:
            fits = the_world().each("memory", lambda: budget.fit(self.policy, self.config, prompt_tokens))
            found = min(fits, key=lambda fit: sum(fit.rows.values()))  # of several processes the one with least room
            for line in budget.said(found, self.config.train):
                self.watch.say(f"{self.folder.path.name} {line}")
            state = first_state(self.config, found)
            self.save(state, optimizer)
        self.saved = state.step
        return state

    def is_over(self, state: State) -> bool:
        return state.stop is not None or state.step >= self.config.train.steps or self._switched_off(state)

    def is_due(self, state: State) -> bool:
        """Whether the weights are to be evaluated as they are; a rollback measures others."""
        regular = state.step % self.config.evaluate.every == 0 or self.is_over(state)
        return state.evaluated < state.step and regular and state.stop != "rollback"

    def look(self, state: State) -> State:
        """Evaluate; the guard sees the canary."""
        found = {}
        for view in self.views:
            found[view.name], state = self._measured(state, view)
            self.folder.log_evaluation(found[view.name], view.name)
        state, seconds = self._look_at_gap(state)
        if state.step == 0:
            self._foresee(state, [found[view.name] for view in self.views], seconds)
        state = replace(state, evaluated=state.step)
        if CANARY not in found:
            return state
        seen = guard.after_canary(state.memory, canary_record(found[CANARY]), self.config.guard)
        return self.judge(state, *seen)

    def _look_at_gap(self, state: State) -> tuple[State, float]:
        """Solver and verifier, where it is their turn; the seconds that took."""
        every = self.config.gap.every
        if not self.gap or (state.step % every and not self.is_over(state)):
            return state, 0.0
        found, state = self._measured(state, self.gap)
        self.folder.log_evaluation(found, GAP)
        return state, found["took"]

    def _foresee(self, state: State, evaluations: Sequence[dict], gap: float) -> None:
        """What the run will take, reckoned once, from what its start is like; written down and said.

        `gap`: seconds of a measurement of solver and verifier.
        """
        views = foresight.views_of(self.views)
        start = foresight.Start([view.examples for view in self.views], views, evaluations, self.saving, self.share)
        found = the_world().each("foresight", lambda: foresight.foresee(
            self.policy, self.config, state.rows, state.recompute, self.prompts, start, the_world().size
        ))  # fmt: skip
        if all(found):
            slowest = max(found, key=lambda plan: sum(plan["seconds"].values()))
            slowest["seconds"]["evaluate"] += gap * (-(-self.config.train.steps // self.config.gap.every) if gap else 0)
            self.watch.say(f"{self.folder.path.name} {foretold(self.folder.log_plan(slowest))}")

    def judge(self, state: State, seen: guard.Memory, decisions: Sequence[guard.Decision]) -> State:
        """What the guard decided: said, written down, and kept for the loop where it ends the run."""
        for decision in decisions:
            self.watch.say(f"{self.folder.path.name} guard ({decision.action}): {decision.message}")
            self.folder.log_decision(asdict(decision))
        ends = [d for d in decisions if d.action != "warn"]
        worst = next((d for d in ends if d.action == "rollback"), ends[0] if ends else None)
        if worst is None or state.stop:
            return replace(state, memory=seen)
        return replace(state, memory=seen, stop=worst.action, reason=f"{worst.rule}: {worst.message}")

    def roll_out(
        self, state: State, step: int, examples: Sequence[Example], encode: Callable[[Example], list[int]]
    ) -> tuple[list[Group], State]:
        """A rollout of all that the next steps train on, prompts out of `examples`."""
        options, number = self.config.train, cycle_of(step, self.config)
        prompts = prompts_of_step(examples, options.prompts_per_step * options.rollout_reuse, options.seed, number)
        ids = [encode(e) for e in prompts]
        seed = derived_seed(options.seed, "rollout", number)

        def draw(rows: int) -> list[Group]:
            return rollout(
                self.policy, prompts, ids, group_size=options.group_size, max_new_tokens=options.max_new_tokens,
                temperature=options.temperature, seed=seed, max_rows=rows,
            )  # fmt: skip

        most = the_world().most(len(ids)) * options.group_size
        return self._within_memory(state, step, "rollout", options.group_size, most, draw)

    def update(
        self, state: State, step: int, optimizer, groups: Sequence[Group], advantage: Tensor, loss_of=None
    ) -> tuple[UpdateRecord, State]:
        """One optimizer step; `loss_of`: see poc.update."""

        def learn(rows: int) -> UpdateRecord:
            with self.policy.recomputing(state.recompute):
                return gradients(self.policy, optimizer, groups, advantage, self.config.train, rows, loss_of)

        rows = torch.ones_like(advantage) if self.config.train.kl else advantage
        most = max(int(rows[part].count_nonzero()) for part in the_world().parts(len(groups)))
        record, state = self._within_memory(state, step, "update", 1, most, learn)
        self.moved = step  # from here on the weights are not those of `state` any more
        take_step(self.policy, optimizer)
        return record, state

    def skip(self, state: State, step: int, found: NonFinite) -> str:
        """Why this step is skipped. Raises RunError where that is not wanted, or not any more."""
        options, said = self.config.train, f"step {step}: {found}: not finite, the weights were left as they are"
        if options.nonfinite == "stop":
            raise RunError(f"{said}; lower train.learning_rate, or leave such steps out: train.nonfinite=skip")
        if state.skipped >= options.nonfinite_cap:
            raise RunError(f"{said}; {state.skipped} steps were skipped before, train.nonfinite_cap allows no more")
        self.watch.say(f"{self.folder.path.name} skipped {said}")
        self.folder.audit.append("skip", {"step": step, "found": str(found)})
        return str(found)

    def save(self, state: State, optimizer) -> None:
        """A checkpoint, unless this step has one; those that the guard may want to go back to stay."""
        if self.saved == state.step:
            return
        best = guard.best_step(state.memory, self.config.guard, self._labels())
        late = (state.evaluated - i * self.config.evaluate.every for i in range(guard.WINDOW))  # may be the best yet
        began = time.perf_counter()
        self.folder.save_checkpoint(state, self.policy, optimizer, {0, best, *late})
        self.saved, self.saving = state.step, time.perf_counter() - began

    @contextmanager
    def last_good(self, now: Callable[[], tuple]) -> Iterator[None]:
        """When a RunError ends the run before its step has moved the weights, their state is saved: nothing is lost."""
        try:
            yield
        except RunError:
            state, optimizer = now()
            if self.moved != state.step + 1:
                self.save(state, optimizer)
            raise

    def ending(self, state: State) -> Ending:
        """The result; where the guard says so, the policy and the run go back to the best checkpoint."""
        if state.stop == "rollback":
            return Ending("stopped", state.reason, self._go_back(state))
        if state.stop:
            return Ending("stopped", state.reason)
        late = guard.at_end(state.memory, self.config.guard, self._labels(), state.step)
        if late and self.is_over(state):
            state = self.judge(state, state.memory, [late])
            return Ending("done", state.reason, self._go_back(state))
        if self._switched_off(state):
            entropy = state.entropies[-1]
            return Ending(
                "done", f"switch: stopped after step {state.step}, policy entropy {entropy:.3f} nats per token"
            )
        return Ending("done" if self.is_over(state) else "interrupted")

    def _go_back(self, state: State) -> int:
        root = self.folder.path / "checkpoints"
        best = guard.best_step(state.memory, self.config.guard, self._labels())
        whole = the_world().from_writer("whole checkpoints", lambda: checkpoint.whole(root))
        if not whole:
            raise RunError("the guard ended the run, but no checkpoint is whole: there is nothing to go back to")
        kept = max((step for step in whole if step <= best), default=min(whole))  # the best, unless it was damaged
        self.policy.load_adapter(root / checkpoint.name(kept))
        self.watch.say(f"{self.folder.path.name} goes back to step {kept}, measured again:")
        for view in self.views:
            if view.name in ("", CANARY):
                found, _ = self._measured(replace(state, step=kept), view, again=True)
                self.folder.log_evaluation(found, f"{KEPT}-{view.name}" if view.name else KEPT)
        return kept

    def _measured(self, state: State, view: View, again: bool = False) -> tuple[dict, State]:
        self.watch.evaluating()
        together = self.config.gap.candidates if view.name == GAP else self.config.evaluate.samples
        most = the_world().most(len(view.examples)) * together

        def evaluate(rows: int) -> dict:
            changed = {"sample_rows": rows, "micro_batch": state.rows["update"]}
            options = self.config.train.model_copy(update=changed)
            return self.measure(view, state.step, self.config.model_copy(update={"train": options}), again)

        evaluation, state = self._within_memory(state, state.step, "evaluate", together, most, evaluate)
        self.watch.evaluated(evaluation, view.name)
        return evaluation, state

    def _within_memory(
        self, state: State, step: int, stage: str, least: int, most: int, work: Callable[[int], T]
    ) -> tuple[T, State]:
        """work(rows at once) out of `most`; with half the rows, at most twice in a run, where memory runs out.

        `least`: fewer save nothing, as the completions of one prompt are sampled together.
        The result is the same up to rounding. Raises RunError with the cheapest ways out when that is not enough.
        """
        while True:
            rows = max(1, min(state.rows[stage], most))
            try:
                return work(rows), state
            except Exception as error:
                if not memory.is_out_of_memory(error):
                    raise
                if rows <= least or state.halved[stage] == HALVINGS:
                    raise RunError(self._no_memory(step, stage, rows, state.halved[stage])) from None
            gc.collect()
            torch.cuda.empty_cache()  # nothing without a GPU
            name = self.folder.path.name
            self.watch.say(f"{name} step {step}: out of memory in {stage}, {rows // 2} rows at once now")
            self.folder.audit.append("memory", {"step": step, "stage": stage, "rows": rows, "now": rows // 2})
            halved = state.halved | {stage: state.halved[stage] + 1}
            state = replace(state, rows=state.rows | {stage: rows // 2}, halved=halved)

    def _no_memory(self, step: int, stage: str, rows: int, halved: int) -> str:
        during = "update" if stage == "update" else "rollout"
        name = "micro_batch" if stage == "update" else "sample_rows"
        base = self.policy.model.get_base_model()
        return memory.out_of_memory_message(
            memory.shape_of(self.policy), self.config.train.model_copy(update={name: rows}), self.longest, during,
            step=step, started=rows * 2**halved, quantized=getattr(base, "is_quantized", False),
            cuda=self.policy.device.type == "cuda",
        )  # fmt: skip

    def _labels(self) -> bool:
        """Whether checkpoints are judged by labelled canary questions; with canary_drop off no label is looked at."""
        if self.config.guard.canary_drop.action == "off":
            return False
        return any(e.answer is not None for view in self.views if view.name == CANARY for e in view.examples)

    def _switched_off(self, state: State) -> bool:
        switch = self.config.switch
        return switch is not None and switch.then == "stop" and hybrid.has_switched(switch, state.entropies)


def first_state(config: RunConfig, found: budget.Fit) -> State:
    """Before the first step."""
    pays_for_certainty = not config.needs_labels and any(name not in CONTROLS for name in config.reward)
    return State(guard.start(pays_for_certainty), found.rows, dict.fromkeys(found.rows, 0), found.recompute)
