"""Which of the fast ways an architecture can take, found out by trying them once on a few tokens.

Sharing a prefix (poc.decode): a cache that is expanded, cut down to some rows and joined with a longer one must go on
as if each row had been computed alone. Packing (poc.packing): completions behind one prompt must see what they see
alone. What fails takes the plain way, and the user is told once. A window is longer than the few tokens that are tried:
where the configuration names one that is not transformers' usual sliding_window, rows are not packed.
"""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from poc.decode import can_share, prefilled
from poc.models import Policy
from poc.packing import hidden_states, pack
from poc.records import Episode

PROMPT, OTHER = (1, 2, 3, 4), (2, 3, 1, 4, 4, 2)  # token ids that every vocabulary has
KNOWN = (
    "sliding_window",
    "_sliding_window_pattern",
    "sliding_window_pattern",
    "use_sliding_window",
    "max_window_layers",
    "chunk_size_feed_forward",
)
COMPLETIONS = ((3, 1, 2), (4, 2), (1, 1, 3, 2))


@torch.no_grad()
def check(policy: Policy) -> Policy:
    """The policy with `shares_prefix` and `packs` found out, and a note for each way that it cannot take."""
    kind = policy.model.config.model_type
    ways: dict[str, tuple[Callable[[Policy], bool], str]] = {
        "shares_prefix": (_shares_prefix, "sampling is slower: by transformers' generate, which computes every row"),
        "packs": (_packs, "updates are slower: the prompt is computed for every completion"),
    }
    found = {name: _works(way, policy) for name, (way, _) in ways.items()}
    said = [f"{policy.source} ({kind}): {ways[name][1]}" for name, works in found.items() if not works]
    return replace(policy, **found, notes=tuple(said))


def _works(way: Callable[[Policy], bool], policy: Policy) -> bool:
    """An architecture may answer with any error to what it does not know."""
    try:
        return way(policy)
    except (AttributeError, IndexError, KeyError, NotImplementedError, RuntimeError, TypeError, ValueError):
        return False


def _shares_prefix(policy: Policy) -> bool:
    rows = prefilled(policy, (0,), (PROMPT,), 2)
    if not can_share(rows.cache):
        return False
    rows.go_on(policy, _ids(policy, 3, 1))
    rows.keep(_ids(policy, 0, 1).bool())
    rows.join(prefilled(policy, (1,), (OTHER,), 1))
    rows.go_on(policy, _ids(policy, 2, 4))
    alone = [_hidden(policy, (*PROMPT, 1, 2)), _hidden(policy, (*OTHER, 4))]
    return _near(rows.hidden, torch.stack(alone))


def _packs(policy: Policy) -> bool:
    if _unknown_window(policy.model.get_base_model().config.get_text_config().to_dict()):
        return False
    nothing = (0.0,) * 9
    episodes = [Episode(ids, "", True, *(nothing[: len(ids)],) * 3) for ids in COMPLETIONS]
    packed = pack([(PROMPT, episodes, (0.0,) * len(episodes))]).to(policy.device)
    alone = [pack([(PROMPT, [episode], (0.0,))]).to(policy.device) for episode in episodes]
    return _near(hidden_states(policy, packed), torch.cat([hidden_states(policy, one) for one in alone]))


def _unknown_window(config: dict) -> bool:
    """Whether attention ends by a rule of the architecture's own (GPT-Neo's window_size, Llama 4's chunks)."""
    own = [name for name in config if ("window" in name or "chunk" in name) and name not in KNOWN]
    return any(config[name] for name in own)


def _ids(policy: Policy, *ids: int) -> Tensor:
    return torch.tensor(ids, device=policy.device)


def _hidden(policy: Policy, ids: tuple[int, ...]) -> Tensor:
    """The last hidden state [H] of one sequence."""
    return policy.body(_ids(policy, *ids)[None])[0][0, -1]


def _near(found: Tensor, expected: Tensor) -> bool:
    tolerance = 1e-3 if found.dtype == torch.float32 else 5e-2
    return bool((found - expected).abs().max() <= tolerance * expected.abs().max())
