"""The linearised network: linear in theta, tangent to the network, and trained by its own gradient."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from llm_bridge.models.language_model import LanguageModel
from llm_bridge.network.adapters import Adapters, Factors
from llm_bridge.network.linear import linear_logits, linear_response_logits
from llm_bridge.network.specs import AdapterSpec
from llm_bridge.network.split import SplitModel
from llm_bridge.rollouts.asked import Question
from llm_bridge.rollouts.rollouts import Prompt, chosen, read_responses, score
from llm_bridge.train import Trainer
from theory.refusal import Refusal
from theory.rules.dialects import preset
from theory.rules.kl import K3

TOKENS = torch.tensor([[7, 12, 0], [1, 3, 12], [9, 9, 9]])
ROWS = torch.arange(3)


@pytest.fixture(scope="module")
def hidden(split: SplitModel, prompt: Prompt) -> Tensor:
    return read_responses(split, prompt, TOKENS)


def moved(split: SplitModel, size: float, seed: int = 0) -> Factors:
    generator = torch.Generator().manual_seed(seed)
    return {
        name: (down, size * torch.randn(up.shape, generator=generator, dtype=up.dtype))
        for name, (down, up) in split.adapters.fresh(3).items()
    }


def combined(a: float, x: Factors, b: float, y: Factors) -> Factors:
    return {name: (down, a * up + b * y[name][1]) for name, (down, up) in x.items()}


def linear_score(split: SplitModel, prompt: Prompt, factors: Factors, hidden: Tensor) -> Tensor:
    logits = linear_response_logits(split, prompt, factors, ROWS, hidden, TOKENS)
    return chosen(logits, TOKENS.flatten()).reshape(TOKENS.shape)


@given(a=st.floats(-3, 3), b=st.floats(-3, 3))
def test_the_change_is_linear_in_theta_and_the_base_does_not_move(split, prompt, hidden, a, b) -> None:
    x, y = moved(split, 1, seed=1), moved(split, 1, seed=2)
    base, both = linear_logits(split, prompt, combined(a, x, b, y), ROWS, hidden)
    parts = [linear_logits(split, prompt, f, ROWS, hidden)[1] for f in (x, y)]
    torch.testing.assert_close(both, a * parts[0] + b * parts[1], rtol=1e-9, atol=1e-9)
    torch.testing.assert_close(base, linear_logits(split, prompt, x, ROWS, hidden)[0], rtol=0, atol=0)


def test_the_network_leaves_its_tangent_with_the_square_of_theta(split, prompt, hidden) -> None:
    """Equal at the base model; a tenth of theta, a hundredth of the difference (from a third-order term on, less)."""
    gaps = []
    for size in (0.0, 1e-3, 1e-2):
        theta = moved(split, size)
        straight = linear_score(split, prompt, theta, hidden)
        gaps.append(float((score(split, prompt, theta, ROWS, hidden, TOKENS) - straight).abs().max()))
    assert gaps[0] < 1e-13
    assert 80 < gaps[2] / gaps[1] < 125


def test_its_gradient_is_the_base_jacobian_times_one_minus_its_own_policy(split, prompt, hidden) -> None:
    """d/dtheta log softmax(z + J theta)_y along a direction d is (e_y - pi)' J d, and J d is what it returns."""
    theta, direction = moved(split, 0.5, seed=3), moved(split, 1, seed=4)
    leaves = split.adapters.trainable(theta)
    grads = torch.autograd.grad(linear_score(split, prompt, theta, hidden).sum(), leaves)
    along = sum(float((g * up).sum()) for g, (_, up) in zip(grads, direction.values(), strict=True))
    base, change = (x.detach() for x in linear_logits(split, prompt, theta, ROWS, hidden))
    pi = (base + change).softmax(dim=-1)
    turn = linear_logits(split, prompt, direction, ROWS, hidden)[1]
    expected = turn.gather(2, TOKENS[:, :, None]).sum() - (pi * turn).sum()
    assert along == pytest.approx(float(expected), rel=1e-9)


def test_adapters_that_train_a_are_refused(tiny: LanguageModel, split, prompt, hidden, monkeypatch) -> None:
    monkeypatch.setattr(split.adapters, "spec", AdapterSpec(rank=2, blocks=1, trained="both"))
    assert isinstance(split.adapters, Adapters)
    with pytest.raises(Refusal, match=r"adapter\.trained is 'both'.*use trained = \"up\""):
        linear_logits(split, prompt, moved(split, 1), ROWS, hidden)


@pytest.mark.parametrize("rule", [preset("minimalist", eta=0.05), preset("rloo", eta=0.05, rollouts=4)])
def test_a_retraced_record_ends_where_the_run_did(split, tiny: LanguageModel, rule) -> None:
    def trainer(seed: int) -> Trainer:
        return Trainer(
            split,
            [Question(tiny.encode_prompt("3+4="), lambda t: float(tiny.decode(list(t)) == "7"), tiny.end_tokens)],
            rule, replicas=4, max_tokens=3, seed=seed,
        )  # fmt: skip

    run, again = trainer(seed=3), trainer(seed=99)
    for turn in run.run(12):
        again.retrace(turn.tokens, turn.rewards)
    assert again.round == 12
    for (_, a), (_, b) in zip(run.factors.values(), again.factors.values(), strict=True):
        assert float(a.detach().abs().max()) > 1e-3
        np.testing.assert_allclose(a.detach().numpy(), b.detach().numpy(), atol=1e-12)


def test_a_record_of_a_rule_with_kl_is_refused(split, tiny: LanguageModel) -> None:
    rule = preset("rloo", eta=0.05).model_copy(update={"kl": K3(beta=0.1)})
    run = Trainer(
        split, [Question(tiny.encode_prompt("3+4="), lambda t: 0.0, (12,))], rule, replicas=1, max_tokens=3
    )
    with pytest.raises(Refusal, match=r"rule\.kl is k3.*without these"):
        run.retrace([(7, 12)] * 4, np.zeros(4))
