"""How much at once: rows of an update and of sampling, and whether layers are computed again, by the memory there is.

`Train.micro_batch` and `Train.sample_rows` are the most; memory (`Train.memory_gib`, or what is free) and what pays
decide what is taken. On a CPU more than FAST numbers of the hidden size at once gain nothing: arithmetic, not the
calls, takes the time. Computing layers again in the backward pass costs half as much again, so it is taken only where
the alternative, to pass fewer completions and so to compute prompts more often, costs more. The estimates are those of
poc.memory; what they miss is caught when memory runs out (poc.session). Nothing is allocated here.
"""

import os
from dataclasses import dataclass

import psutil
import torch

from poc import memory
from poc.config import RunConfig, Train
from poc.memory import Shape
from poc.models import Policy

GIB = 2**30
SHARE = 0.8  # of the free memory, where none is named: estimates err, and others want some
FAST = 2**17  # hidden numbers of a pass on a CPU; measured on two cores with hidden sizes 128 and 576
AGAIN = 1.5  # forward, forward again and backward, to forward and backward: weights are frozen, so that both cost alike


@dataclass(frozen=True, slots=True)
class Fit:
    """Completions at once in update, rollout and evaluate, and gradient checkpointing; `lacking`: bytes too little."""

    rows: dict[str, int]
    recompute: bool
    lacking: int = 0


def fit(policy: Policy, config: RunConfig, prompt_tokens: int) -> Fit:
    """What this run takes at once on this machine. `prompt_tokens`: the longest prompt."""
    return choose(
        memory.shape_of(policy), config.train, config.evaluate.samples, prompt_tokens,
        room(policy.device, config.train.memory_gib), policy.device.type == "cuda",
    )  # fmt: skip


def room(device: torch.device, memory_gib: float | None) -> int:
    """Bytes that are there beside what this process holds already (the weights are loaded); below 0: too much.

    `memory_gib` is each process's; what is free is shared out between the processes of this machine (poc.parallel).
    """
    cuda = device.type == "cuda"
    if memory_gib is not None:
        held = torch.cuda.memory_reserved(device) if cuda else psutil.Process().memory_info().rss
        return int(memory_gib * GIB) - held
    free = torch.cuda.mem_get_info(device)[0] if cuda else psutil.virtual_memory().available
    sharing = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
    return int(SHARE * free) // (-(-sharing // torch.cuda.device_count()) if cuda else sharing)


def said(found: Fit, train: Train) -> list[str]:
    """What the user should know of a fit; nothing where all is taken as it was asked for."""
    few = [f"{found.rows['update']} completions a pass"] * (found.rows["update"] < train.micro_batch)
    few += [f"{found.rows['rollout']} sampled at once"] * (found.rows["rollout"] < train.sample_rows)
    few += ["layers are computed again in the backward pass"] * (found.recompute and not train.recompute)
    lines = [f"fits itself to the memory: {', '.join(few)}"] if few else []
    if found.lacking:
        lines.append(
            f"may run out of memory: about {found.lacking / GIB:.2f} GiB more are needed than there are; a smaller "
            "train.group_size, train.max_new_tokens, lora.rank or model needs less"
        )
    return lines


def choose(shape: Shape, train: Train, samples: int, prompt: int, space: int, cuda: bool) -> Fit:
    """Pure: the fit into `space` bytes."""
    left = space - memory.optimizer_bytes(shape, train)
    micro_batch, recompute = _update(shape, train, prompt, left, cuda)
    rows = {
        "update": micro_batch,
        "rollout": _sampling(shape, train, train.group_size, prompt, left),
        "evaluate": _sampling(shape, train, samples, prompt, left),
    }
    taken = train.model_copy(
        update={"micro_batch": micro_batch, "sample_rows": rows["rollout"], "recompute": recompute}
    )
    needed = max(memory.step_bytes(shape, taken, prompt, during) for during in ("update", "rollout"))
    return Fit(rows, recompute, max(0, needed - memory.weight_bytes(shape) - space))


def _update(shape: Shape, train: Train, prompt: int, space: int, cuda: bool) -> tuple[int, bool]:
    """Completions a pass and whether to recompute: the cheapest of what fits, else the smallest."""
    answer, group, all_rows = train.max_new_tokens, train.group_size, train.prompts_per_step * train.group_size

    def tokens(rows: int) -> int:
        """Of a group."""
        k = memory.together(shape, rows, group, prompt, answer)
        return -(-group // k) * prompt + group * answer

    def most(recompute: bool) -> int:
        sizes = range(1, min(train.micro_batch, all_rows) + 1)
        fits = lambda rows: memory.pass_bytes(shape, rows, group, prompt, answer, recompute) <= space  # noqa: E731
        return max(filter(fits, sizes), default=0)

    choices = [False, True] if train.recompute is None else [train.recompute]
    found = [(tokens(rows) * (AGAIN if again else 1), again, rows) for again in choices if (rows := most(again))]
    if not found:
        return 1, choices[-1]
    _, recompute, rows = min(found)
    enough = rows if cuda else min(rows, _whole(shape, rows, group, prompt, answer))
    return (train.micro_batch if enough >= all_rows else enough), recompute


def _whole(shape: Shape, rows: int, group: int, prompt: int, answer: int) -> int:
    """Completions of as many whole rows as make a pass fast on a CPU."""
    k = memory.together(shape, rows, group, prompt, answer)
    return k * max(1, round(FAST / shape.hidden / (prompt + k * answer)))


def _sampling(shape: Shape, train: Train, copies: int, prompt: int, space: int) -> int:
    """Completions that are written at once: whole groups of `copies`."""
    length = prompt + train.max_new_tokens
    fixed = memory.sampling_bytes(shape, 0, length)
    a_row = memory.sampling_bytes(shape, 1, length) - fixed
    return max(copies, min(train.sample_rows, max(0, space - fixed) // a_row // copies * copies))
