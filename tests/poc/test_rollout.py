"""What is sampled is what is scored, whatever else is in the batch."""

from collections import Counter

import pytest
import torch
from vocab_kernels import linear_token_stats

from poc.draw import draw, head_logits, left_pad
from poc.records import Example
from poc.rollout import rollout, sample

PROMPTS = [[10, 11, 12], [20, 21, 22, 23, 24, 25], [30]]


def drawn_by(policy, prompts=PROMPTS, copies=4, **options):
    options = {"max_new_tokens": 24, "temperature": 1.0, "seed": 5} | options
    return sample(policy, prompts, copies, **options)


def rescored(policy, prompt, episode, temperature):
    """Statistics of one completion by one plain forward pass, no padding, no cache."""
    ids = torch.tensor([[*prompt, *episode.token_ids]])
    hidden, _ = policy.body(ids)
    hidden = hidden[0, len(prompt) - 1 : -1]
    head = policy.head
    return linear_token_stats(
        hidden,
        head.weight,
        ids[0, len(prompt) :],
        temperature=temperature,
        vocab_size=head.vocab_size,
        backend="reference",
    )


@pytest.mark.parametrize("temperature", [1.0, 0.7])
@torch.no_grad()
def test_recorded_statistics_are_those_of_the_tokens(tiny_policy, temperature):
    for prompt, episodes in zip(PROMPTS, drawn_by(tiny_policy, temperature=temperature), strict=True):
        for episode in episodes:
            stats = rescored(tiny_policy, prompt, episode, temperature)
            for name in ("logp", "entropy", "self_certainty"):
                assert torch.allclose(torch.tensor(getattr(episode, name)), getattr(stats, name), atol=1e-4), name


def test_the_end_token_is_kept_and_a_cut_completion_is_marked(tiny_policy):
    episodes = [e for group in drawn_by(tiny_policy, copies=32) for e in group]
    finished = [e for e in episodes if e.finished]
    assert finished and len(finished) < len(episodes)
    assert all(e.token_ids[-1] in tiny_policy.stop_ids and len(e.text) < len(e) for e in finished)
    assert all(len(e) == 24 and not set(e.token_ids) & tiny_policy.stop_ids for e in episodes if not e.finished)


def test_a_row_does_not_depend_on_the_others(tiny_policy):
    """Same uniforms, other company: rows that finish early leave, prompts are padded otherwise, chunks differ."""
    together = drawn_by(tiny_policy, max_rows=1000)
    chunked = drawn_by(tiny_policy, max_rows=1)
    assert [[e.token_ids for e in g] for g in together] == [[e.token_ids for e in g] for g in chunked]


def test_same_seed_same_draws_other_seed_other_draws(tiny_policy):
    ids = lambda seed: [[e.token_ids for e in g] for g in drawn_by(tiny_policy, seed=seed)]  # noqa: E731
    assert ids(1) == ids(1) != ids(2)


@torch.no_grad()
def test_tokens_come_from_the_whole_tempered_softmax(tiny_policy):
    """First tokens of 4000 draws against the exact distribution (chi-square): a top-k or top-p cut empties the tail."""
    episodes = drawn_by(
        tiny_policy, prompts=[PROMPTS[0]], copies=4000, max_new_tokens=1, temperature=1.3, max_rows=4000
    )[0]
    counts = Counter(e.token_ids[0] for e in episodes)
    hidden, _ = tiny_policy.body(torch.tensor([PROMPTS[0]]))
    p = torch.softmax(head_logits(tiny_policy.head, hidden[:, -1]).double() / 1.3, -1)[0]
    big = p * 4000 >= 5
    observed = torch.tensor([counts[i] for i in range(len(p))], dtype=torch.float64)
    observed, expected = (torch.cat([x[big], x[~big].sum()[None]]) for x in (observed, p * 4000))
    chi2 = ((observed - expected) ** 2 / expected).sum()
    degrees = len(observed) - 1
    assert chi2 < degrees + 4 * (2 * degrees) ** 0.5
    assert sum(counts[i] for i in torch.nonzero(~big).flatten().tolist()) > 0


@torch.no_grad()
def test_greedy_is_argmax(tiny_policy):
    prompt = PROMPTS[1]
    episode = drawn_by(tiny_policy, prompts=[prompt], copies=1, temperature=0.0)[0][0]
    for t, token in enumerate(episode.token_ids):
        hidden, _ = tiny_policy.body(torch.tensor([[*prompt, *episode.token_ids[:t]]]))
        assert head_logits(tiny_policy.head, hidden[0, -1:]).argmax().item() == token


def test_padding_columns_of_the_head_are_never_drawn(tiny_policy):
    from dataclasses import replace

    tiny_policy.head = replace(tiny_policy.head, vocab_size=40)
    drawn = {t for g in drawn_by(tiny_policy, copies=64) for e in g for t in e.token_ids}
    assert max(drawn) < 40


def test_left_pad():
    class policy:
        device = "cpu"

    ids, mask = left_pad([[5], [6, 7]], policy)
    assert ids.tolist() == [[0, 5], [6, 7]] and mask.tolist() == [[0, 1], [1, 1]]


def test_groups_carry_verdicts_where_there_is_a_gold(tiny_policy):
    examples = [Example("a", "1+1=?", "2", "math"), Example("b", "?", None, "own")]
    groups = rollout(tiny_policy, examples, PROMPTS[:2], group_size=2, max_new_tokens=4, temperature=1.0, seed=0)
    assert all(e.verdict is not None for e in groups[0].episodes) and all(e.verdict is None for e in groups[1].episodes)
    assert groups[0].prompt_ids == (10, 11, 12) and groups[0].example.id == "a"


@pytest.mark.parametrize("size", [3, 256, 257, 1000])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_the_token_is_where_the_cumulated_probability_passes_the_number(size, temperature):
    """Against float64 without blocks, with numbers in the middle of every token's interval, the ends included."""
    logits = torch.randn(1, size, generator=torch.Generator().manual_seed(size)) * 3
    p = torch.softmax(logits.double() / temperature, -1)[0]
    middle = p.cumsum(0) - p / 2
    tokens, _ = draw(logits.expand(size, -1), temperature, middle)
    wide = p > 1e-6  # narrower than rounding of the probabilities themselves
    assert wide.sum() > 2 and torch.equal(tokens[wide], torch.arange(size)[wide])
    ends = torch.tensor([0.0, 1.0 - 2**-53], dtype=torch.float64)
    first, last = draw(logits.expand(2, -1), temperature, ends)[0].tolist()
    assert first == 0 and last >= size - 1 - int((p[-3:] < 1e-7).sum())
