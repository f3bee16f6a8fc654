"""Pay: its laws on every back end, its names on a command line, and what responses that are text are paid."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from theory.pay import (
    PAYS,
    Clean,
    Format,
    NegativeOnly,
    Noisy,
    Overlong,
    Pay,
    PlusMinus,
    Shaped,
    Term,
    check_pay,
    named_pay,
    no_pay_on_text,
    paid,
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


def law(pay, truth=TRUTH, length=LENGTH, flip=FLIP):
    rewards, chances = pay.law(*map(np.asarray, (truth, length, flip)))
    return np.broadcast_arrays(*rewards), np.broadcast_arrays(*chances)


@pytest.mark.parametrize("pay", ALL, ids=lambda pay: pay.kind)
def test_every_law_is_a_distribution_and_survives_a_file(pay):
    rewards, chances = law(pay)
    assert np.sum(chances, axis=0) == pytest.approx(1, abs=1e-12)
    assert np.min(chances) >= 0 and np.isfinite(rewards).all()
    assert pay.random == any(np.any((c > 0) & (c < 1)) for c in chances)
    again = TypeAdapter(Pay).validate_json(pay.model_dump_json())
    assert again == pay and hash(again) == hash(pay)


@pytest.mark.parametrize("pay", [pay for pay in ALL if pay.random], ids=lambda pay: pay.kind)
def test_payments_follow_the_law(pay):
    """20,000 even uniforms per point: each reward has its chance to 1e-4, the width of the grid."""
    uniform = (np.arange(20_000) + 0.5) / 20_000
    rewards, chances = law(pay)
    for i, (truth, length, flip) in enumerate(GRID):
        got = pay.pay(uniform, *np.full((3, 20_000), [[truth], [length], [flip]]))
        for reward in np.unique([r[i] for r in rewards]):
            wanted = sum(c[i] for r, c in zip(rewards, chances, strict=True) if r[i] == reward)
            assert np.mean(got == reward) == pytest.approx(wanted, abs=3e-4)


def test_a_rare_misjudgement_keeps_its_odds_in_float32():
    """1 - 1e-9 is 1 in float32; the misjudged outcome comes first, so that a uniform of 5e-10 still finds it."""
    for xp in (np, jnp, torch):
        one = xp.ones(2, dtype=xp.float32)
        uniform = xp.asarray([5e-10, 2e-9], dtype=xp.float32)
        assert Noisy(false_negative=1e-9).pay(uniform, one, one, 0 * one).tolist() == [0, 1]


def test_hand_made_payments():
    """Overlong: limit 6, buffer 4: no penalty up to 2 tokens, half at 4, whole from 6 on."""
    lengths = np.array([1.0, 2, 4, 6, 9])
    ones = np.ones(5)
    (penalty,), _ = law(Overlong(limit=6, buffer=4), ones, lengths, ones)
    assert penalty.tolist() == [0, 0, -0.5, -1, -1]
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


@pytest.mark.parametrize(("pay", "change"), MUTATIONS)
def test_every_field_changes_the_mean_payment(pay, change):
    def mean(v):
        return sum(r * c for r, c in zip(*law(v), strict=True))

    assert np.abs(mean(pay) - mean(pay.model_copy(update=change))).max() > 1e-3


KINDS = st.sampled_from([PlusMinus(), NegativeOnly(), Clean()])
RATE = st.floats(0, 1)
LIMITS = st.tuples(st.floats(1, 20), st.floats(0.01, 1)).map(
    lambda x: Overlong(limit=x[0], buffer=x[0] * x[1])
)
PARTS = [
    KINDS,
    st.builds(Noisy, false_positive=RATE, false_negative=RATE, pays=KINDS),
    LIMITS,
    st.builds(Format, right=RATE, wrong=RATE),
]
WEIGHTS = st.floats(-2, 2).filter(lambda x: abs(x) > 1e-3)


@st.composite
def pays(draw):
    """Any pay; shaped of up to four terms of different kinds."""
    parts = [draw(part) for part in draw(st.permutations(PARTS))[: draw(st.integers(1, 4))]]
    if len(parts) == 1:
        return parts[0]
    return Shaped(terms=tuple(Term(weight=draw(WEIGHTS), pays=part) for part in parts))


@given(pay=pays(), seed=st.integers(0, 2**31), single=st.booleans())
def test_numpy_jax_and_torch_pay_the_same_and_chances_sum_to_one(pay, seed, single):
    """To the last bit in float64 and in float32: the back ends do the same operations in the same order."""
    rng, dtype = np.random.default_rng(seed), np.float32 if single else np.float64
    given = [rng.random(64), rng.integers(0, 2, 64), rng.integers(1, 20, 64), rng.random(64)]
    uniform, truth, length, flip = (x.astype(dtype) for x in given)
    rewards, chances = pay.law(truth, length, flip)
    assert all(x.dtype == dtype and x.shape == (64,) for x in (*rewards, *chances))
    assert np.sum(chances, axis=0) == pytest.approx(1, abs=1e-5 if single else 1e-12)
    assert np.min(chances) >= 0
    got = pay.pay(uniform, truth, length, flip)
    assert got.dtype == dtype and all(any(x == r[i] for r in rewards) for i, x in enumerate(got))
    on_torch = pay.pay(*map(torch.from_numpy, (uniform, truth, length, flip)))
    with jax.enable_x64(not single):
        on_jax = pay.pay(*map(jnp.asarray, (uniform, truth, length, flip)))
        traced = jax.jit(pay.pay)(*map(jnp.asarray, (uniform, truth, length, flip)))
        assert on_jax.dtype == traced.dtype == dtype
    np.testing.assert_array_equal(got, on_torch.numpy())
    np.testing.assert_array_equal(got, np.asarray(on_jax))
    # Compiled, products and sums may be fused, and a chance at the very edge fall on the other side.
    near = np.isclose(got, np.asarray(traced), rtol=0, atol=1e-5 if single else 1e-12)
    assert near.mean() > 0.98


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        *[(kind, PAYS[kind]()) for kind in ("clean", "plus_minus", "negative_only", "noisy")],
        ("plus-minus", PlusMinus()),
        ("noisy:false_positive=.1,false-negative=.05", Noisy(false_positive=0.1, false_negative=0.05)),
        (
            " noisy : false_negative = .2 , pays = negative-only",
            Noisy(false_negative=0.2, pays=NegativeOnly()),
        ),
        ("overlong:limit=6.4e+1,buffer=16", Overlong(limit=64, buffer=16)),
        ("format:right=.9,wrong=.4", Format(right=0.9, wrong=0.4)),
        (
            "clean + .5*overlong:limit=1e+2,buffer=16 + -1e-1 * noisy:false_positive=.1",
            Shaped(
                terms=(
                    Term(pays=Clean()),
                    Term(weight=0.5, pays=Overlong(limit=100, buffer=16)),
                    Term(weight=-0.1, pays=Noisy(false_positive=0.1)),
                )
            ),
        ),
        ("2*plus_minus", Shaped(terms=(Term(weight=2, pays=PlusMinus()),))),
    ],
)
def test_pay_by_name(text, wanted):
    assert named_pay(text) == wanted


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("generous", r"pay 'generous': 'generous' is unknown; choose clean, plus_minus, .*, shaped"),
        ("", "'' is unknown; choose clean"),
        ("shaped", r"write the sum of its terms, such as clean\+"),
        ("noisy:false_positive", "give each field once, as noisy:FIELD=VALUE"),
        ("noisy:false_positive=.1,false_positive=.2", "give each field once"),
        ("noisy:false_positive=often", "false_positive: Input should be a valid number.*not 'often'"),
        ("noisy:false_positive=2", "false_positive: Input should be less than or equal to 1"),
        ("noisy:pays=generous", "pays"),
        ("clean:rate=1", "rate: Extra inputs"),
        ("overlong:limit=3", "buffer: Field required"),
        ("clean+clean", "terms holds clean twice"),
        ("x*clean", "weight: Input should be a valid number"),
        ("clean+generous", "'generous' is unknown"),
    ],
)
def test_a_name_that_is_no_pay_is_refused_with_what_is_wrong(text, message):
    with pytest.raises(Refusal, match=message):
        named_pay(text)


def test_every_kind_of_pay_is_registered_with_a_line_of_its_own():
    fields = TypeAdapter(Pay).json_schema()["discriminator"]["mapping"]
    assert set(PAYS) == set(fields)
    for kind, made in PAYS.items():
        assert made.model_fields["kind"].default == kind
        assert made.__doc__ and made.__doc__ != Clean.__base__.__doc__


@pytest.mark.parametrize(
    ("pay", "wanted"),
    [
        (Clean(), [0, 1, 0, 1]),
        (PlusMinus(), [-1, 1, -1, 1]),
        (NegativeOnly(), [-1, 0, -1, 0]),
        # Misjudged below .1 where wrong, below .2 where right.
        (Noisy(false_positive=0.1, false_negative=0.2), [1, 0, 0, 1]),
        (Noisy(false_positive=0.1, false_negative=0.2, pays=PlusMinus()), [1, -1, -1, 1]),
        # -clip((l - 3) / 2 + 1): 0 at one token, a half at two, whole from three on.
        (Overlong(limit=3, buffer=2), [0, -0.5, -1, -1]),
        (Shaped(terms=(Term(pays=Clean()), Term(weight=0.5, pays=PlusMinus()))), [-0.5, 1.5, -0.5, 1.5]),
    ],
)
def test_what_text_is_paid(pay, wanted):
    assert no_pay_on_text(pay) is None
    got = paid(pay, [0.05, 0.15, 0.15, 0.25], np.array([0, 1, 0, 1], np.float32), np.array([1, 2, 3, 4]))
    np.testing.assert_allclose(got, wanted, atol=1e-15)
    assert got.dtype == np.float64


def test_what_means_nothing_on_text_has_a_reason():
    drawn = "format draws by chance whether a response is well-formed"
    assert drawn in str(no_pay_on_text(Format(wrong=0.5)))
    assert drawn in str(no_pay_on_text(Shaped(terms=(Term(pays=Clean()), Term(pays=Format(wrong=0.5))))))
    assert "noisy with rates 0 misjudges nothing" in str(no_pay_on_text(Noisy()))


def test_what_has_no_effect_or_no_meaning_is_refused():
    with pytest.raises(Refusal, match=r"reward 0\.5 with noisy pay"):
        check_pay(Noisy(false_positive=0.1), np.array([0, 0.5, 1]))
    with pytest.raises(Refusal, match="arms have flip, but plus_minus never misjudges"):
        check_pay(PlusMinus(), np.array([0, 1]), np.array([0.1, 0]))
    with pytest.raises(Refusal, match="misjudges nothing"):
        check_pay(Noisy(), np.array([0, 1]), np.array([0, 0]))
    for fields, message in [
        ({"kind": "overlong", "limit": 3, "buffer": 4}, "exceeds limit"),
        ({"kind": "noisy", "false_positive": 1.1}, "less than or equal to 1"),
        ({"kind": "shaped", "terms": []}, "at least 1 item"),
        ({"kind": "shaped", "terms": [{"pays": {"kind": "clean"}}] * 2}, "terms holds clean twice"),
        ({"kind": "shaped", "terms": [{"weight": 0, "pays": {"kind": "clean"}}]}, "leave the term out"),
        ({"kind": "clean", "rate": 1}, "Extra inputs"),
    ]:
        with pytest.raises(Refusal, match=message):
            PAYS[fields["kind"]](**fields)
