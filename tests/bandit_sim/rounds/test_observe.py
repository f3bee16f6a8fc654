"""Observables against NumPy on the same draws, thinning, grids, dtypes and devices."""

import os
import subprocess
import sys

import jax
import numpy as np
import pytest

from bandit_sim import Arms, ParticleArms, TreeArms, simulate, simulate_grid
from bandit_sim.rounds.observe import OBSERVABLES
from bandit_sim.rounds.scan import run_seeds
from theory.curves import Curves
from theory.pay import Noisy
from theory.refusal import Refusal
from theory.rules import Adam
from theory.rules.signals import GroupMean

EVERY_NAME = [*(name for name in OBSERVABLES if name != "held_out"), "class_mass"]  # one query holds none out


def two_arms(p0=0.3):
    return Arms.two_class(arms=2, correct=1, p0=p0)


@pytest.mark.parametrize("kind", ["dense", "kernel", "tree"])
def test_every_observable_is_finite_on_every_engine(make_rule, token_model, kind):
    tree = token_model(0).tree()
    arms = {
        "dense": Arms.two_class(arms=9, correct=2, p0=0.2),
        "kernel": ParticleArms.from_tree(tree),
        "tree": TreeArms.from_tree(tree),
    }
    curves = simulate(arms[kind], make_rule(0.1, "leave_one_out", 2), 3, 2, 0, observe=EVERY_NAME)
    assert {metric.partition("/")[0] for metric in curves.metrics} == set(EVERY_NAME)
    assert [metric for metric in curves.metrics if not np.isfinite(curves[metric]).all()] == []


@pytest.mark.usefixtures("x64")
def test_observables_of_two_arms_are_functions_of_p_and_the_draws(make_rule):
    """Two arms: everything follows from p_t and the reward r_t in closed form."""
    curves = simulate(two_arms(), make_rule(0.4), 30, 64, 1, observe=EVERY_NAME)
    p, r = curves["success"], curves["reward"]
    q = 1 - p
    close = {
        "entropy": -p * np.log(p) - q * np.log(q),
        "winner_share": np.ones_like(p),
        # direction = r (1[a] - pi), so its norm is r |(1 - p, p - 1)| on a success.
        "gradient_norm": r * q * np.sqrt(2),
        "zero_signal": 1 - r,
        "outcome": r,
        "distinct": np.cumsum(r, axis=1) - r > 0,
        "regret": np.cumsum(q, axis=1) - q,
        "class_mass/0": q,
        "class_mass/1": p,
    }
    for name, wanted in close.items():
        np.testing.assert_allclose(curves[name], wanted, atol=1e-12, err_msg=name)


def test_outcomes_are_of_trained_rollouts_and_true_whatever_is_paid(make_rule):
    """Judged wrongly, each is paid 1 - outcome; extra rollouts count in the reward and not in the outcome."""
    wrong = Noisy(false_positive=1.0, false_negative=1.0)
    names = ("outcome", "reward")
    seen = simulate(two_arms(), make_rule(0.4), 20, 32, 1, observe=names, pay=wrong)
    np.testing.assert_array_equal(seen["outcome"], 1 - seen["reward"])
    assert set(np.unique(seen["outcome"])) == {0.0, 1.0}
    rule = make_rule(0.4).model_copy(update={"signal": GroupMean(extra=7)})
    helped = simulate(two_arms(), rule, 20, 32, 1, observe=names)
    assert set(np.unique(helped["outcome"])) == {0.0, 1.0}
    assert not set(np.unique(helped["reward"])) <= {0.0, 1.0}
    # The first rollout of the first round draws the same number with helpers and without.
    np.testing.assert_array_equal(helped["outcome"][:, 0], seen["outcome"][:, 0])


def test_signal_and_noise_of_raw_reward_on_two_arms(make_rule):
    """Raw: g = r (1 - p) (1, -1), so |E g|^2 = 2 p^2 q^2 and tr Cov g = 2 q^2 (p - p^2): SNR p / q (C7b, P1b).

    20,000 estimates; 5 of their own standard errors: false-alarm rate 6e-7 each.
    """
    for p in (0.2, 0.5):
        q = 1 - p
        seen = simulate(two_arms(p), make_rule(), 1, 20_000, 3, observe=["signal", "noise"])
        for name, wanted in (("signal", 2 * p**2 * q**2), ("noise", 2 * p * q**3)):
            error = seen[name].std() / np.sqrt(20_000)
            assert abs(seen[name].mean() - wanted) < 5 * error, (p, name)


@pytest.mark.parametrize("every", [2, 7, 30, 100])
def test_thinning_keeps_the_bits_and_names_its_rounds(make_rule, every):
    arms, rule = Arms.two_class(arms=9, correct=2, p0=0.2), make_rule(0.3, "leave_one_out", 3)
    names = ["success", "reward", "regret", "distinct"]
    whole = simulate(arms, rule, 30, 8, 5, observe=names)
    thin = simulate(arms, rule, 30, 8, 5, observe=names, every=every)
    assert (thin.at == np.arange(0, 30, every)).all()
    for name in names:
        np.testing.assert_allclose(thin[name], whole[name][:, ::every], rtol=1e-6)


def test_a_grid_gives_each_case_what_it_gives_alone(make_rule):
    cases = [
        (Arms.two_class(arms=9, correct=2, p0=p0), make_rule(eta, "leave_one_out", n))
        for p0, eta, n in [(0.2, 0.3, 4), (0.4, 0.1, 2), (0.2, 0.3, 3)]
    ]
    together = simulate_grid(cases, 20, 10, 7)
    for (arms, rule), curves in zip(cases, together, strict=True):
        alone = simulate(arms, rule, 20, 10, 7)
        for name in ("success", "reward"):
            np.testing.assert_allclose(curves[name], alone[name], rtol=1e-5)


def test_a_grid_compiles_once_for_any_eta_p0_and_rollouts(make_rule):
    def grid(eta, p0):
        return [(two_arms(p0), make_rule(eta, "leave_one_out", n)) for n in (2, 3)]

    simulate_grid(grid(0.1, 0.2), 5, 3, 0)
    before = run_seeds._cache_size()  # type: ignore[attr-defined]
    simulate_grid(grid(0.7, 0.6), 5, 3, 0)
    assert run_seeds._cache_size() == before  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda a, r: (a, r.model_copy(update={"optimiser": Adam(eta=0.1)})),
            r"cases\[1\].*another optimiser",
        ),
        (
            lambda a, r: (Arms.two_class(arms=3, correct=1, p0=0.5), r),
            r"cases\[1\].*one kind, shape and static fields",
        ),
    ],
)
def test_a_grid_names_the_case_that_does_not_fit(make_rule, change, message):
    first = (two_arms(), make_rule())
    with pytest.raises(Refusal, match=message):
        simulate_grid([first, change(*first)], 2, 2, 0)


@pytest.mark.parametrize(
    ("kept", "message"), [(["sucess"], r"'sucess' is unknown; choose success"), ([], r"observe is empty")]
)
def test_unknown_observables_are_named(make_rule, kept, message):
    with pytest.raises(Refusal, match=message):
        simulate(two_arms(), make_rule(), 2, 2, 0, observe=kept)


def test_float64_on_request_without_the_global_switch(make_rule):
    """At eta = 1e-9 p moves by less than float32 can hold."""
    single, double = (
        simulate(two_arms(), make_rule(1e-9), 20, 4, 0, dtype=dtype)["success"]
        for dtype in ("float32", "float64")
    )
    assert np.ptp(single) == 0 and 0 < np.ptp(double) < 1e-7
    assert not jax.config.jax_enable_x64  # type: ignore[attr-defined]


def test_seeds_shared_over_devices_keep_their_bits(tmp_path):
    """Four CPU devices need a process of their own: the number is fixed when JAX starts."""
    program = """
import jax, numpy as np
from bandit_sim import Arms, simulate
from theory.rules import SGD, LeaveOneOut, Rule
arms = Arms.two_class(arms=9, correct=2, p0=0.2)
rule = Rule(signal=LeaveOneOut(), optimiser=SGD(eta=0.2), rollouts=2)
assert len(jax.devices()) == 4
one = simulate(arms, rule, 10, 300, 0)
four = simulate(arms, rule, 10, 300, 0, devices=jax.devices())
assert (one["success"] == four["success"]).all() and (one["reward"] == four["reward"]).all()
print("same")
"""
    flags = {"XLA_FLAGS": "--xla_force_host_platform_device_count=4", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True, text=True, check=False, env={**os.environ, **flags},
    )  # fmt: skip
    assert done.stdout.strip() == "same", done.stderr[-2000:]


def test_curves_know_the_rounds_of_their_columns():
    curves = Curves({"success": np.zeros((2, 3))}, at=np.array([0, 5, 10]))
    assert (Curves.concatenate([curves, curves]).at == [0, 5, 10]).all()
    assert (Curves({"success": np.zeros((2, 3))}).at == [0, 1, 2]).all()
    with pytest.raises(Refusal, match=r"curves\.at.*3 increasing round numbers"):
        Curves({"success": np.zeros((2, 3))}, at=np.array([0, 5, 5]))
