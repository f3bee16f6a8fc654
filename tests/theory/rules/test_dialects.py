"""Named rules: the trainers' golden vectors, and that each name is a rule every back end can run."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.theory.rules.table import QUERIES, round_of
from theory.refusal import Refusal
from theory.rules import PRESETS, Batch, Rule, preset

ONE_OF = {n: [1.0] + [0.0] * (n - 1) for n in (1, 2, 4, 8)}


def advantages(name: str, rewards, extras=(), greedy=()) -> np.ndarray:
    """The dialect's advantages of one query's one-token rollouts, helpers after them."""
    paid = np.array([*rewards, *extras, *greedy], dtype=float)
    role = np.array([0] * len(rewards) + [1] * len(extras) + [2] * len(greedy))
    one = np.ones((len(paid), 1))
    batch = Batch(-one, -one, -one, paid, np.zeros(len(paid), dtype=int), one, role)
    signal = PRESETS[name].signal
    return signal.advance(batch.cleaned(), signal.init(np, 1))[0][: len(rewards)]


# The advantage of the success and of a failure in one of 2, of 4 and of 8.
# Mean 1/n, sum of squared deviations (n-1)/n: sample variance 1/n, population variance (n-1)/n^2.
# Sample: success (1 - 1/n) sqrt(n) = 1/sqrt 2, 3/2, 7/sqrt 8; failure -1/sqrt n. Population: sqrt(n-1) and
# -1/sqrt(n-1). Mean only: 1 - 1/n and -1/n. Leave-one-out: 1 and -1/(n-1). MaxRL: (r - m)/m = n-1 and -1.
SAMPLE = {2: (0.7071068, -0.7071068), 4: (1.5, -0.5), 8: (2.4748737, -0.3535534)}
POPULATION = {2: (1.0, -1.0), 4: (1.7320508, -0.5773503), 8: (2.6457513, -0.3779645)}
MEAN = {2: (0.5, -0.5), 4: (0.75, -0.25), 8: (0.875, -0.125)}
OTHERS = {2: (1.0, -1.0), 4: (1.0, -1 / 3), 8: (1.0, -1 / 7)}
RAW = {n: (1.0, 0.0) for n in (2, 4, 8)}
LARGE = {n: (n - 1.0, -1.0) for n in (2, 4, 8)}
# What a lone rollout of reward 1 gets; None where the trainer refuses.
GOLDEN: dict[str, tuple[dict, float | None]] = {
    "minimalist": (RAW, 1.0),
    "rloo": (OTHERS, None),
    "max-rl": ({n: (float(n), 0.0) for n in (2, 4, 8)}, None),
    "sign": ({n: (1.0, -1.0) for n in (2, 4, 8)}, 1.0),
    "psr": (RAW, 1.0),
    "nsr": ({n: (0.0, -1.0) for n in (2, 4, 8)}, 0.0),
    "w-reinforce": ({n: (0.1, -1.0) for n in (2, 4, 8)}, 0.1),
    "group-mean": (MEAN, None),
    "dr-grpo": (MEAN, None),
    # std + 1e-4: .5 / .7072068 = .70701, .75 / .5001 = 1.4997, .875 / .3536534 = 2.47417
    "trl-grpo": ({2: (0.70701, -0.70701), 4: (1.4997, -0.4999), 8: (2.47417, -0.35345)}, None),
    "trl-grpo-batch": ({2: (0.70701, -0.70701), 4: (1.4997, -0.4999), 8: (2.47417, -0.35345)}, None),
    "trl-grpo-sequence": ({2: (0.70701, -0.70701), 4: (1.4997, -0.4999), 8: (2.47417, -0.35345)}, None),
    "trl-dr-grpo": (MEAN, None),
    "trl-rloo": (OTHERS, None),
    "verl-grpo": (SAMPLE, 1.0),
    "verl-grpo-vectorized": (SAMPLE, 1.0),
    "verl-dr-grpo": (MEAN, 1.0),
    "verl-rloo": (OTHERS, 1.0),
    "verl-rloo-vectorized": (OTHERS, 0.0),
    # equal lengths: the length-weighted mean is the mean
    "verl-opo": (MEAN, 1.0),
    # alpha = n / 1: n (1 - 1/n) and -1
    "verl-gpg": (LARGE, 1.0),
    # lead 1 over 1/sqrt n; failures nothing
    "verl-grpo-passk": ({2: (1.4142136, 0.0), 4: (2.0, 0.0), 8: (2.8284271, 0.0)}, None),
    "verl-reinforce-plus-plus": (SAMPLE, None),
    "verl-reinforce-plus-plus-baseline": (SAMPLE, 0.0),
    "openrlhf-reinforce": (POPULATION, 0.0),
    "openrlhf-reinforce-no-std": (MEAN, 0.0),
    "openrlhf-reinforce-baseline": (POPULATION, None),
    "openrlhf-rloo": (OTHERS, None),
    "openrlhf-group-norm": (SAMPLE, None),
    "openrlhf-dr-grpo": (MEAN, None),
    "tunix-grpo": (SAMPLE, None),
    "tunix-rloo": (OTHERS, None),
    "tunix-dr-grpo": (MEAN, None),
    "open-instruct-centered": (MEAN, 0.0),
    "open-instruct-standard": (POPULATION, 0.0),
    "prime-rl-grpo": (MEAN, 0.0),
    "prime-rl-max-rl": (LARGE, 0.0),
    # b = 0 before the first round
    "prime-rl-rae": (RAW, 1.0),
    "papers-2601.22532-baseline": (SAMPLE, 1.0),
    "papers-2601.22532-replay": (SAMPLE, 1.0),
}


@pytest.mark.parametrize("name", GOLDEN)
@pytest.mark.parametrize("n", [2, 4, 8])
def test_golden_advantages_of_one_success(name, n):
    success, failure = GOLDEN[name][0][n]
    a = advantages(name, ONE_OF[n])
    np.testing.assert_allclose(a, [success] + [failure] * (n - 1), atol=1e-5)  # eps = 1e-6 moves them by 8e-6


@pytest.mark.parametrize("name", GOLDEN)
def test_golden_lone_rollout(name):
    """One query, one rollout, reward 1: a value, or a refusal that names the fix."""
    lone = GOLDEN[name][1]
    if lone is None:
        with pytest.raises(Refusal, match=r"for one rollout use raw"):
            preset(name, rollouts=1).init(np)
    else:
        assert preset(name, rollouts=1).init(np) is not None
        assert advantages(name, [1.0])[0] == pytest.approx(lone, abs=1e-12)


def test_golden_helpers():
    """ReMax: 1 - 1 and 0 - 1 against a greedy success. onerpo: 1 - 2/8 over the sample std of two of eight,
    sqrt((2 - 4/8) / 7) = .4629100: .75 / .462911 = 1.620182."""
    for name in ("remax", "verl-remax"):
        np.testing.assert_array_equal(advantages(name, [1, 0], greedy=[1]), [0, -1])
        np.testing.assert_array_equal(advantages(name, [1, 0], greedy=[0]), [1, 0])
    onerpo = advantages("papers-2601.22532-onerpo", [1], extras=[1, 0, 0, 0, 0, 0, 0])
    assert onerpo[0] == pytest.approx(1.620182, abs=1e-6)
    assert advantages("papers-2601.22532-onerpo", [1], extras=[1] * 7)[0] == 0


def test_every_name_has_its_golden_vector():
    assert set(PRESETS) == set(GOLDEN) | {"remax", "verl-remax", "papers-2601.22532-onerpo"}


def test_same_name_different_numbers():
    """peers.md A2: "GRPO, standardised" of [1, 0] is .70701, .70711, .70711, .70711 and 1."""
    names = ("trl-grpo", "verl-grpo", "openrlhf-group-norm", "tunix-grpo", "open-instruct-standard")
    assert [round(float(advantages(name, [1, 0])[0]), 5) for name in names] == [
        0.70701, 0.70711, 0.70711, 0.70711, 1.0,
    ]  # fmt: skip


def test_verl_floors_a_tiny_spread_only_where_it_is_vectorised():
    """Rewards 0 and 2e-4: sample std 1.414e-4. Loop: 1e-4 / (1.414e-4 + 1e-6) = .70214; floored at 1e-3: .1."""
    assert advantages("verl-grpo", [0, 2e-4])[1] == pytest.approx(0.70214, abs=1e-5)
    assert advantages("verl-grpo-vectorized", [0, 2e-4])[1] == pytest.approx(0.1, abs=1e-12)


def test_token_weighted_whitening():
    """Success of 3 tokens, failure of 1: token mean 3/4, population variance 3/16 = .4330127 squared:
    1/4 / .4330127 = .5773503 and -3/4 / .4330127 = -1.7320508. verl divides by N - 1 = 3: variance 1/4."""
    mask = np.array([[1.0, 1, 1], [1, 0, 0]])
    batch = Batch(-mask, -mask, -mask, np.array([1.0, 0.0]), np.array([0, 1]), mask)
    openrlhf = PRESETS["openrlhf-reinforce"].signal.advantage(batch)
    np.testing.assert_allclose(openrlhf, [0.5773503, -1.7320508], atol=1e-6)
    verl = PRESETS["verl-reinforce-plus-plus"].signal.advantage(batch)
    np.testing.assert_allclose(verl, [0.5, -1.5], atol=1e-6)


def test_length_weighted_baseline():
    """OPO: success of 3 tokens, failure of 1: baseline 3/4, so 1/4 and -3/4."""
    mask = np.array([[1.0, 1, 1], [1, 0, 0]])
    batch = Batch(-mask, -mask, -mask, np.array([1.0, 0.0]), np.array([0, 0]), mask)
    np.testing.assert_allclose(PRESETS["verl-opo"].signal.advantage(batch), [0.25, -0.75])


def test_the_papers_configuration():
    """arXiv 2601.22532: AdamW, lr 1e-6, weight decay .01, clip 1, k3 .001, micro-batches of 4, one rollout."""
    for name, drawn in (("baseline", 1), ("onerpo", 8), ("replay", 1)):
        rule = preset(f"papers-2601.22532-{name}")
        fields = (rule.optimiser.eta, rule.optimiser.weight_decay, rule.kl.beta, rule.rollouts)
        assert fields == (1e-6, 0.01, 0.001, 1) and rule.drawn == drawn
        assert rule.optimiser.clip_norm == 1 and rule.aggregation.micro_batch == 4
        assert (rule.optimiser.kind, rule.kl.kind, rule.aggregation.kind) == (
            "adam",
            "k3",
            "micro_batch_token_mean",
        )


@pytest.mark.parametrize("name", PRESETS)
def test_every_dialect_gives_the_same_weights_in_numpy_and_torch(name):
    rule = preset(name)
    state, tensors = rule.init(np, QUERIES), rule.init(torch, QUERIES)
    for seed in range(3):
        batch = round_of(seed, roles=True)
        w, state = rule.weights(batch, state)
        t, tensors = rule.weights(Batch(*map(torch.as_tensor, batch)), tensors)
        np.testing.assert_allclose(t, w, rtol=1e-10, atol=1e-12)
        assert np.all(np.isfinite(w))


@pytest.mark.parametrize("name", PRESETS)
def test_a_dialect_takes_eta_and_survives_json(name):
    rule = preset(name, eta=0.3)
    assert rule.optimiser.eta == 0.3 and Rule.model_validate_json(rule.model_dump_json()) == rule
