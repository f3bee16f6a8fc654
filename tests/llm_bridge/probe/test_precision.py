"""A probe that stops at a precision: what it draws, and what stopping costs."""

from __future__ import annotations

import numpy as np
import pytest

from llm_bridge.probe.spec import BATCH, ProbeSpec
from llm_bridge.probe.survey import known_to
from tests.llm_bridge.conftest import probed
from theory.refusal import Refusal
from theory.trees.prefix_tree import PrefixTree, Responses
from theory.trees.probe import Probe


def seen(mass: np.ndarray, counts: np.ndarray) -> Responses:
    """Correct responses of given mass, one token each, and all wrong ones as the last."""
    at = np.flatnonzero(counts)
    whole = np.array([*mass, 1 - mass.sum()])[at]
    logs = tuple((float(np.log(m)),) for m in whole)
    right = (at < len(mass)).astype(float)
    return Responses(tuple((int(i),) for i in at), logs, counts[at], right, np.ones(len(at), dtype=bool))


def stopped(mass: np.ndarray, precision: float, seed: int) -> tuple[float, bool, int]:
    """(p0, whether its interval covers the truth, rollouts) of one probe stopped at a precision."""
    rng = np.random.default_rng(seed)
    counts = np.zeros(len(mass) + 1, dtype=np.int64)
    for _ in range(64):
        counts = counts + rng.multinomial(BATCH, [*mass, 1 - mass.sum()])
        responses = seen(mass, counts)
        if known_to(precision, responses):
            break
    probe = Probe(responses, PrefixTree((), (), (), ()), np.zeros((0, 0)))
    low, high = probe.p0_interval()
    return probe.p0, low <= mass.sum() <= high, int(counts.sum())


@pytest.mark.parametrize(("share", "exponent", "arms"), [(0.05, 1.0, 100), (0.1, 0.7, 3000)])
def test_stopping_at_a_precision(share: float, exponent: float, arms: int) -> None:
    """300 probes each at relative precision .2, fixed keys. p0's mean is off by less than .25 of the half-width (its
    standard error is .03 of it, so a false alarm is beyond 5 sigma from the .08 seen); the 95% interval covers in 90%
    or more (a false alarm below 3e-4 if it covers in 94.5%)."""
    mass = np.arange(1, arms + 1.0) ** -exponent
    mass *= share / mass.sum()
    made = np.array([stopped(mass, 0.2, seed) for seed in range(300)])
    assert abs(made[:, 0].mean() / share - 1) < 0.25 * 0.2
    assert made[:, 1].mean() >= 0.9
    assert BATCH < made[:, 2].mean() < 16 * BATCH


def test_a_narrower_interval_needs_more_rollouts() -> None:
    mass = np.full(50, 0.002)
    drawn = [stopped(mass, precision, 1)[2] for precision in (0.3, 0.1, 0.03)]
    assert drawn == sorted(drawn) and drawn[0] < drawn[2]
    assert not known_to(0.9, seen(mass, np.array([0] * 50 + [BATCH]))), "no success, no precision"


def test_the_probe_stops_and_is_that_of_so_many_rollouts(split, question) -> None:
    early = probed(split, question, rollouts=4096, precision=0.01)
    drawn = early.meta.rollouts
    assert drawn == early.responses.rollouts and BATCH < drawn < 4096 and drawn % BATCH == 0
    fixed = probed(split, question, rollouts=drawn)
    assert fixed.responses.tokens == early.responses.tokens and fixed.p0 == early.p0
    np.testing.assert_array_equal(fixed.gram, early.gram)
    low, high = early.p0_interval()
    assert (high - low) / 2 <= 0.01 * early.p0
    assert probed(split, question, rollouts=300, precision=1e-9).responses.rollouts == 300


def test_precision_in_the_spec() -> None:
    """Older probes keep their hash; a precision that one batch cannot look at is refused."""
    assert "precision" not in ProbeSpec().model_dump(mode="json")
    assert ProbeSpec(precision=0.1).model_dump(mode="json")["precision"] == 0.1
    with pytest.raises(Refusal, match=r"precision 0.1 changes nothing in 256 rollouts.*raise rollouts"):
        ProbeSpec(precision=0.1, rollouts=256)
    with pytest.raises(Refusal, match="greater than 0"):
        ProbeSpec(precision=0.0)
