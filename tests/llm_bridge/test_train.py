"""Training: each replica alone is what it is in the batch; a stopped run goes on bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from llm_bridge.models import LanguageModel
from llm_bridge.rollouts import score
from llm_bridge.split import SplitModel
from llm_bridge.train import Trainer
from theory.rules.dialects import preset
from theory.rules.optimiser import Adam
from theory.rules.rule import Rule


def trainer(
    split: SplitModel,
    tiny: LanguageModel,
    rule: Rule | None = None,
    *,
    replicas: int = 6,
    chunk: int = 16,
    paid=None,
) -> Trainer:
    reward = paid or (lambda t: float(tiny.decode(list(t)) == "7"))
    return Trainer(
        split,
        tiny.encode_prompt("3+4="),
        reward,
        rule or preset("minimalist", eta=0.05),
        replicas=replicas,
        max_tokens=3,
        end_tokens=tiny.end_tokens,
        seed=3,
        chunk=chunk,
    )


def ups(run: Trainer) -> list[np.ndarray]:
    return [up.detach().numpy().copy() for _, up in run.factors.values()]


@pytest.mark.parametrize("rule", [preset("minimalist", eta=0.05), preset("rloo", eta=0.05, rollouts=4)])
def test_one_round_is_the_gradient_step_of_the_rule(split, tiny, rule) -> None:
    """theta' = theta + eta grad mean_i A_i log pi(y_i), by autograd of that mean, for each replica."""
    run = trainer(split, tiny, rule)
    turn = run.step()
    n = rule.rollouts
    rewards = turn.rewards.reshape(-1, n)
    advantage = rewards if n == 1 else (rewards - (rewards.sum(1, keepdims=True) - rewards) / (n - 1))
    for s in range(run.replicas):
        own = split.adapters.fresh(1)
        leaves = split.adapters.trainable(own)
        total = torch.zeros((), dtype=torch.float64)
        for i in range(n):
            y = torch.tensor([turn.tokens[s * n + i]])
            with torch.no_grad():
                hidden, _ = split.trunk.run(tokens=y, past=run.prompt.past)
            logs = score(split, run.prompt, own, torch.zeros(1, dtype=torch.long), hidden[:, :-1], y)
            total = total + float(advantage[s, i]) / n * logs.sum()
        grads = (
            torch.autograd.grad(total, leaves)
            if total.requires_grad
            else [torch.zeros_like(x) for x in leaves]
        )
        for got, leaf, grad in zip(ups(run), leaves, grads, strict=True):
            np.testing.assert_allclose(got[s], (leaf + 0.05 * grad).detach().numpy()[0], atol=1e-12)


def test_replicas_do_not_touch_one_another(split, tiny) -> None:
    many, few = trainer(split, tiny, replicas=6), trainer(split, tiny, replicas=2)
    for _ in range(5):
        many.step(), few.step()
    for a, b in zip(ups(many), ups(few), strict=True):
        np.testing.assert_allclose(a[:2], b, atol=1e-12)


def test_gradient_does_not_depend_on_the_chunk(split, tiny) -> None:
    whole, pieces = trainer(split, tiny, chunk=16), trainer(split, tiny, chunk=1)
    for _ in range(4):
        whole.step(), pieces.step()
    for a, b in zip(ups(whole), ups(pieces), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12)


@pytest.mark.parametrize(
    "rule",
    [
        preset("minimalist", eta=0.05),
        Rule(optimiser=Adam(eta=0.01)),
        preset("prime-rl-rae", eta=0.05),
        preset("papers-2601.22532-replay", eta=0.01, rollouts=2),
    ],
    ids=["sgd", "adam", "moving average", "reward window"],
)
def test_resumed_run_is_the_uninterrupted_one_bit_for_bit(split, tiny, rule) -> None:
    straight = trainer(split, tiny, rule)
    turns = list(straight.run(8))
    stopped = trainer(split, tiny, rule)
    list(stopped.run(3))
    again = trainer(split, tiny, rule)
    again.load_state(stopped.state())
    rest = list(again.run(8))
    assert [t.tokens for t in turns[3:]] == [t.tokens for t in rest]
    for a, b in zip(ups(straight), ups(again), strict=True):
        np.testing.assert_array_equal(a, b)


def test_raw_reward_without_success_moves_nothing(split, tiny) -> None:
    run = trainer(split, tiny, paid=lambda t: 0.0)
    list(run.run(3))
    assert all(np.all(up == 0) for up in ups(run))


def test_a_rule_that_draws_helpers_is_rejected(split, tiny) -> None:
    for name in ("remax", "papers-2601.22532-onerpo"):
        with pytest.raises(ValueError, match="draws rollouts that are not trained on"):
            trainer(split, tiny, preset(name))


def test_nan_reward_names_replica_and_round(split, tiny) -> None:
    run = trainer(split, tiny, paid=lambda t: float("nan"))
    with pytest.raises(ValueError, match="replica 0 in round 1"):
        run.step()


def test_learning_raises_success(split, tiny) -> None:
    """p0 is about a third; after 60 rounds at eta .05 a mean over 64 replicas that does not rise by 4 standard
    errors (.06 each) would be a bug, not chance."""
    run = trainer(split, tiny, replicas=64)
    paid = np.stack([t.rewards for t in run.run(60)])
    assert paid[-5:].mean() > paid[:5].mean() + 0.15
