"""The sketch: linear, unbiased, as far off as it says; and a probe that carries it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy import stats

from llm_bridge.probe.sketch import Sketch
from tests.llm_bridge.conftest import probed
from theory.refusal import Refusal

SEEDS = 2000


def vectors() -> list[torch.Tensor]:
    """Two vectors in two parts whose large coordinates lie a block apart, where a plain fold would pile them up."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 30, generator=generator, dtype=torch.float64)
    x[:, 3::8] *= 10
    x[1] += 0.5 * x[0]
    return [x[:, :19].reshape(2, 19), x[:, 19:].reshape(2, 11)]


def products(size: int) -> np.ndarray:
    """(SEEDS, 2, 2) sketched inner products, a seed each."""
    sketches = (Sketch(size, seed)(vectors()) for seed in range(SEEDS))
    return np.stack([(s @ s.T).numpy() for s in sketches])


def test_sketch_is_linear_and_the_same_for_every_batch() -> None:
    x, sketch = vectors(), Sketch(8, 1)
    whole = sketch(x)
    torch.testing.assert_close(sketch([2 * part[:1] - part[1:] for part in x]), 2 * whole[:1] - whole[1:])
    torch.testing.assert_close(Sketch(8, 1)([part[1:] for part in x]), whole[1:])
    assert not torch.equal(Sketch(8, 2)(x), whole)


@pytest.mark.parametrize("size", [1, 8, 30])
def test_inner_products_are_unbiased_and_no_further_off_than_stated(size: int) -> None:
    """Mean over seeds within 4 standard errors of the truth (a false alarm in 16,000); variance within the bound.

    (|a|^2 |b|^2 + <a, b>^2) / d; a sample variance of 2,000 exceeds its own by 1.25 with probability below 1e-6
    where the tails are those of a chi square. One block is no sketch but signs: nothing meets, nothing is lost.
    """
    x = torch.cat(vectors(), dim=1).numpy()
    exact, got = x @ x.T, products(size)
    for a, b in ((0, 0), (0, 1), (1, 1)):
        values = got[:, a, b]
        bound = (exact[a, a] * exact[b, b] + exact[a, b] ** 2) / size
        assert values.var() < 1.25 * bound
        assert abs(values.mean() - exact[a, b]) <= 4 * max(values.std(), 1e-9) / np.sqrt(SEEDS)


def test_one_coordinate_meets_every_other_with_the_stated_chance() -> None:
    """Of unit vectors of two blocks, |<S e_i, S e_j>| is 1 with probability 1/d; of one block never."""
    x = torch.zeros(2, 16)
    x[0, 2] = x[1, 13] = 1
    met = sum(abs(float(s[0] @ s[1])) for s in (Sketch(8, seed)([x]) for seed in range(SEEDS)))
    low, high = stats.binom.interval(0.9999, SEEDS, 1 / 8)
    assert low <= met <= high
    x[1] = torch.eye(16)[5]
    assert all(float(s[0] @ s[1]) == 0 for s in (Sketch(8, seed)([x]) for seed in range(50)))


def test_sketched_probe_is_the_exact_one_within_its_stated_error(split, question) -> None:
    """Every entry within 6 standard deviations: sums of many signs are near normal, 2e-9 each, 1e-5 in all."""
    exact, rough = (probed(split, question, sketch=d) for d in (None, 256))
    assert rough.meta.sketch == 256 and rough.meta.sketch_error == pytest.approx((2 / 256) ** 0.5)
    assert exact.meta.sketch is None and "sketch" not in exact.meta.to_json()
    norms = np.diag(exact.gram)
    deviation = np.sqrt((np.outer(norms, norms) + exact.gram**2) / 256)
    error = rough.gram - exact.gram
    assert np.abs(error / np.maximum(deviation, 1e-12)).max() < 6
    assert np.abs(error).max() > 0
    np.testing.assert_array_equal(rough.responses.mass, exact.responses.mass)


def test_sketch_that_saves_nothing_is_refused(split, question) -> None:
    with pytest.raises(Refusal, match=r"sketch = 1000000, but only .* parameters are trained; give fewer"):
        probed(split, question, sketch=10**6)
    with pytest.raises(Refusal, match="sketch = 0; give at least 1"):
        Sketch(0, 0)
