"""Verifiers: their laws, what they pay, and what noise does to the expected update."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter
from scipy import stats

from bandit_sim import Arms, TokenTree, expected_step, simulate
from bandit_sim.engines import dense
from bandit_sim.verifiers import (
    Clean,
    Format,
    NegativeOnly,
    Noisy,
    Overlong,
    PlusMinus,
    Shaped,
    Term,
    Verifier,
    check_verifier,
)
from theory.refusal import Refusal

SHAPED = Shaped(
    terms=(
        Term(pays=Noisy(false_positive=0.1, false_negative=0.3, pays=PlusMinus())),
        Term(weight=0.5, pays=Overlong(limit=6, buffer=4)),
        Term(weight=-0.25, pays=Format(right=0.9, wrong=0.4)),
    )
)
ALL = [
    Clean(),
    PlusMinus(),
    NegativeOnly(),
    Noisy(false_positive=0.1, false_negative=0.3),
    Noisy(false_negative=0.2, pays=NegativeOnly()),
    Overlong(limit=6, buffer=4),
    Format(right=0.9, wrong=0.4),
    SHAPED,
]
GRID = [(t, length, flip) for t in (0.0, 1.0) for length in (1.0, 4.0, 7.0) for flip in (0.0, 0.25)]
TRUTH, LENGTH, FLIP = (np.array(column) for column in zip(*GRID, strict=True))


def law(verifier, truth=TRUTH, length=LENGTH, flip=FLIP):
    rewards, chances = verifier.law(*(jnp.asarray(x) for x in (truth, length, flip)))
    return np.broadcast_arrays(*map(np.asarray, rewards)), np.broadcast_arrays(*map(np.asarray, chances))


@pytest.mark.parametrize("verifier", ALL, ids=lambda v: v.kind)
@pytest.mark.usefixtures("x64")
def test_every_law_is_a_distribution_and_survives_a_file(verifier):
    rewards, chances = law(verifier)
    assert np.sum(chances, axis=0) == pytest.approx(1, abs=1e-12)
    assert np.min(chances) >= 0 and np.isfinite(rewards).all()
    assert verifier.random == any(np.any((c > 0) & (c < 1)) for c in chances)
    again = TypeAdapter(Verifier).validate_json(verifier.model_dump_json())
    assert again == verifier and hash(again) == hash(verifier)


@pytest.mark.parametrize("verifier", [v for v in ALL if v.random], ids=lambda v: v.kind)
@pytest.mark.usefixtures("x64")
def test_payments_follow_the_law(verifier):
    """20,000 even uniforms per point: each reward has its chance to 1e-4, the width of the grid."""
    uniform = (np.arange(20_000) + 0.5) / 20_000
    rewards, chances = law(verifier)
    for i, (truth, length, flip) in enumerate(GRID):
        paid = verifier.pay(
            *(jnp.asarray(x) for x in (uniform, *np.full((3, 20_000), [[truth], [length], [flip]])))
        )
        for reward in np.unique([r[i] for r in rewards]):
            wanted = sum(c[i] for r, c in zip(rewards, chances, strict=True) if r[i] == reward)
            assert np.mean(np.asarray(paid) == reward) == pytest.approx(wanted, abs=3e-4)


def test_a_rare_misjudgement_keeps_its_odds_in_float32():
    """1 - 1e-9 is 1 in float32; the misjudged outcome comes first, so that a uniform of 5e-10 still finds it."""
    one = jnp.ones(2, jnp.float32)
    paid = Noisy(false_negative=1e-9).pay(jnp.asarray([5e-10, 2e-9], jnp.float32), one, one, 0 * one)
    assert paid.tolist() == [0, 1]


def test_hand_made_payments():
    """Overlong: limit 6, buffer 4: no penalty up to 2 tokens, half at 4, whole from 6 on."""
    lengths = np.array([1.0, 2, 4, 6, 9])
    ones = np.ones(5)
    (paid,), _ = law(Overlong(limit=6, buffer=4), ones, lengths, ones)
    assert paid.tolist() == [0, 0, -0.5, -1, -1]
    assert law(PlusMinus())[0][0].tolist() == [-1] * 6 + [1] * 6
    assert law(NegativeOnly())[0][0].tolist() == [-1] * 6 + [0] * 6
    # FP = .1, FN = .3; an arm of its own flip .25 is misjudged with .1 * .75 + .9 * .25 = .3, .3 * .75 + .7 * .25 = .4.
    chances = law(Noisy(false_positive=0.1, false_negative=0.3))[1][0]
    assert chances == pytest.approx([0.1, 0.3] * 3 + [0.3, 0.4] * 3)
    # +1 for correct; judged right .7, well-formed .9; length 4: .5 * -.5; format -.25.
    rewards, chances = law(SHAPED, *np.array([[1.0], [4.0], [0.0]]))
    mean = sum(r[0] * c[0] for r, c in zip(rewards, chances, strict=True))
    assert mean == pytest.approx(0.7 - 0.3 - 0.25 - 0.25 * 0.9)


MUTATIONS = [
    (Noisy(false_positive=0.1), {"false_positive": 0.2}),
    (Noisy(false_positive=0.1), {"false_negative": 0.2}),
    (Noisy(false_positive=0.1), {"pays": PlusMinus()}),
    (Overlong(limit=6, buffer=4), {"limit": 7}),
    (Overlong(limit=6, buffer=4), {"buffer": 5}),
    (Format(wrong=0.4), {"right": 0.5}),
    (Format(wrong=0.4), {"wrong": 0.5}),
    (SHAPED, {"terms": SHAPED.terms[:2]}),
    (SHAPED, {"terms": (SHAPED.terms[0], Term(weight=0.4, pays=SHAPED.terms[1].pays), SHAPED.terms[2])}),
]


@pytest.mark.parametrize(("verifier", "change"), MUTATIONS)
def test_every_field_changes_the_mean_payment(verifier, change):
    def mean(v):
        return sum(r * c for r, c in zip(*law(v), strict=True))

    assert np.abs(mean(verifier) - mean(verifier.model_copy(update=change))).max() > 1e-3


@given(fp=st.floats(0, 1), fn=st.floats(0, 1), seed=st.integers(0, 2**31))
def test_youden_j_scales_the_expected_direction(fp, fn, seed):
    """sum_a pi_a E[r | a] grad log pi_a = (1 - FP - FN) times that of the true rewards: zero at FP + FN = 1."""
    rng = np.random.default_rng(seed)
    with jax.enable_x64(True):
        arms = Arms.from_masses(rng.dirichlet(np.ones(6)), [1, 0, 0, 1, 0, 0])
        state, everything = dense.init(arms), jnp.arange(6)
        rewards, chances = Noisy(false_positive=fp, false_negative=fn).law(
            jnp.asarray(arms.reward), jnp.ones(6), jnp.zeros(6)
        )
        mean = sum(r * c for r, c in zip(rewards, chances, strict=True))
        pi = jnp.exp(state)
        got = dense.direction(arms, state, everything, (pi * mean)[:, None])
        true = dense.direction(arms, state, everything, (pi * arms.reward)[:, None])
        assert np.abs(got - (1 - fp - fn) * true).max() < 1e-14


@pytest.mark.parametrize(("fp", "fn"), [(0.1, 0.3), (0.4, 0.6), (0.7, 0.6)])
@pytest.mark.usefixtures("x64")
def test_success_rises_stands_or_falls_with_youden_j(make_rule, fp, fn):
    """The expected step of every arm and payment, in units of the clean one: J = .6, 0, -.3, up to O(eta)."""
    arms, rule = Arms.from_masses([0.2, 0.5, 0.2, 0.1], [1, 0, 0, 1]), make_rule(1e-5)
    ratio = expected_step(arms, rule, Noisy(false_positive=fp, false_negative=fn)) / expected_step(arms, rule)
    assert ratio == pytest.approx(1 - fp - fn, abs=1e-3)
    flipped = Arms(arms.logits, arms.reward, flip=np.where(arms.reward > 0, fn, fp))
    assert expected_step(flipped, rule, Noisy()) / expected_step(arms, rule) == pytest.approx(
        ratio, abs=1e-12
    )


def test_simulated_payments_follow_flip_and_length(make_rule):
    """Rewards of round 0 over 4,096 seeds against their law; chi-square, false-alarm rate 1e-4 over the key."""
    arms = TokenTree.grow([0.5, 0.3, 0.2], 2, lambda y: float(2 in y))
    arms = TokenTree(**{**vars(arms), "flip": np.where(arms.length == 2, 0.3, 0.1)})
    verifier = Shaped(
        terms=(Term(pays=Noisy(false_positive=0.05)), Term(weight=0.5, pays=Overlong(limit=2, buffer=1)))
    )
    curves = simulate(arms, make_rule(), 1, 4096, 7, verifier=verifier)
    mass = np.prod(
        np.where(np.arange(2) < arms.length[:, None], np.array([0.5, 0.3, 0.2])[arms.token], 1), axis=1
    )
    rewards, chances = law(verifier, arms.reward, arms.length.astype(float), arms.flip)
    values = [-0.5, 0.0, 0.5, 1.0]
    odds = [
        sum(np.sum(mass * c * (r == value)) for r, c in zip(rewards, chances, strict=True))
        for value in values
    ]
    counts = [np.sum(np.isclose(curves["reward"], value)) for value in values]
    assert sum(odds) == pytest.approx(1) and min(odds) > 0 and sum(counts) == 4096
    assert stats.chisquare(counts, np.array(odds) * 4096).pvalue > 1e-4
    assert curves["success"] == pytest.approx(mass @ arms.reward, rel=1e-5)  # the true p, whatever is paid


def test_what_has_no_effect_or_no_meaning_is_refused(make_rule):
    arms = Arms.two_class(arms=3, correct=1, p0=0.2)
    flipped = Arms(arms.logits, arms.reward, flip=np.array([0.1, 0, 0]))
    with pytest.raises(Refusal, match="arms have flip, but PlusMinus never misjudges"):
        simulate(flipped, make_rule(), 1, 1, 0, verifier=PlusMinus())
    with pytest.raises(Refusal, match="misjudges nothing"):
        expected_step(arms, make_rule(), Noisy())
    with pytest.raises(Refusal, match=r"reward 0\.5 with a noisy verifier"):
        check_verifier(Noisy(false_positive=0.1), np.array([0, 0.5, 1]))
    with pytest.raises(Refusal, match=r"flip of arm 1 is 1\.5"):
        Arms(arms.logits, arms.reward, flip=np.array([0, 1.5, 0]))
    for fields, message in [
        ({"kind": "overlong", "limit": 3, "buffer": 4}, "exceeds limit"),
        ({"kind": "noisy", "false_positive": 1.1}, "less than or equal to 1"),
        ({"kind": "shaped", "terms": []}, "at least 1 item"),
        ({"kind": "shaped", "terms": [{"pays": {"kind": "clean"}}] * 2}, "terms holds clean twice"),
        ({"kind": "shaped", "terms": [{"weight": 0, "pays": {"kind": "clean"}}]}, "leave the term out"),
        ({"kind": "clean", "rate": 1}, "Extra inputs"),
    ]:
        with pytest.raises(Refusal, match=message):
            TypeAdapter(Verifier).validate_python(fields)
