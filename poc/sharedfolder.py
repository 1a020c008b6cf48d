"""A run folder when several processes work on the run: one writes it, the others look on.

Process 0 has a RunFolder and tells the others where the run stands; they have an Onlooker, which has the same methods,
writes nothing, and reads adapter and optimizer from the checkpoint that process 0 found: all see the same disk.
"""

from pathlib import Path

from poc.config import RunConfig
from poc.parallel import the_world
from poc.runfolder import RunFolder

RESTORE = "restoring the run"


def opened(path: Path, config: RunConfig, facts: dict) -> "RunFolder | Onlooker":
    """This process's view of the folder. Raises InputError, on all of them, as RunFolder does."""
    world = the_world()
    with world.together("opening the run folder"):
        if world.size == 1:
            return RunFolder(path, config, facts)
        return Shared(path, config, facts) if world.is_writer else Onlooker(path)


class Shared(RunFolder):
    """Of the process that writes."""

    def restore(self, policy, optimizer, say):
        return the_world().from_writer(RESTORE, lambda: super(Shared, self).restore(policy, optimizer, say))


class _Nothing:
    """Takes the place of the audit log."""

    def append(self, event: str, data: dict) -> None:
        pass


class Onlooker:
    """Of every other process."""

    def __init__(self, path: Path) -> None:
        self.path, self.audit = path, _Nothing()

    def restore(self, policy, optimizer, say):
        state = the_world().from_writer(RESTORE, lambda: None)
        if state:
            from poc import checkpoint

            found = self.path / "checkpoints" / checkpoint.name(state.step)
            policy.load_adapter(found)
            checkpoint.load_optimizer(found, policy, optimizer)
        return state

    def log_step(self, record, groups, totals) -> None:
        pass

    def log_evaluation(self, evaluation: dict, view: str = "") -> None:
        pass

    def log_plan(self, plan: dict) -> dict:
        return plan | {"total": sum(plan["seconds"].values())}

    def log_decision(self, decision: dict) -> None:
        pass

    def save_checkpoint(self, state, policy, optimizer, keep) -> None:
        pass

    def log_outcome(self, status: str, reason: str | None = None, kept: int | None = None) -> None:
        pass

    def close(self) -> None:
        pass
