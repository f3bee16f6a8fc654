import jax
import numpy as np
import pytest
from scipy import stats

from bandit_sim import Arms, ParticleArms, TreeArms, expected_step, replay, simulate
from bandit_sim.engines.sampling import choose, choose_by_mass, fine_uniform
from bandit_sim.rounds.keys import PER_QUERY, PICK, VIRTUAL, key_at, keys_at, rollout_keys, root_key
from bandit_sim.rounds.scan import run_seeds
from theory.refusal import Refusal


def all_kinds(token_model):
    tree = token_model(0).tree()
    return {
        "dense": Arms.two_class(arms=50, correct=3, p0=0.1),
        "kernel": ParticleArms.from_tree(tree),
        "tree": TreeArms.from_tree(tree),
    }


@pytest.mark.parametrize("kind", ["dense", "kernel", "tree"])
def test_chunks_change_no_bit_and_report_progress(make_rule, token_model, kind):
    arms, rule = all_kinds(token_model)[kind], make_rule(0.2, "leave_one_out", 2)
    whole = simulate(arms, rule, 12, 137, 5)
    assert whole.seeds == 137 and whole.rounds == 12
    seen: list[tuple[int, int]] = []
    for chunk in (1, 64, 100, 1000):
        seen.clear()
        parts = simulate(arms, rule, 12, 137, 5, chunk=chunk, progress=lambda *at: seen.append(at))
        for name in ("success", "reward"):
            assert (parts[name] == whole[name]).all()
        assert seen[-1] == (137, 137) and [s[0] for s in seen] == sorted({s[0] for s in seen})


def test_a_block_of_seeds_is_that_block_of_the_whole(make_rule):
    arms = Arms.two_class(arms=10, correct=2, p0=0.2)
    whole = simulate(arms, make_rule(), 10, 130, 5)
    block = simulate(arms, make_rule(), 10, range(11, 130), jax.random.key(5))
    assert (block["success"] == whole["success"][11:]).all()


def test_keys_of_seed_round_rollout_are_all_distinct():
    root = root_key(0)
    keys = jax.vmap(
        lambda s: jax.vmap(lambda r: rollout_keys(jax.random.fold_in(root, s), r, 1, 8, 8))(
            np.arange(50, dtype=np.uint32)
        )
    )(np.arange(100, dtype=np.uint32))
    data = np.asarray(jax.random.key_data(keys)).reshape(-1, 2)
    assert len(np.unique(data, axis=0)) == 100 * 50 * 8


def test_keys_beside_the_rollouts_are_distinct_from_theirs_and_among_rounds():
    """What picks the queries, what virtual rounds hang on, and helpers, at the ends of their ranges."""
    places = np.array([0, 1, PER_QUERY // 2, PER_QUERY - 1, PER_QUERY, VIRTUAL, PICK], np.uint32)
    rounds = np.array([0, 1, 2, PICK], np.uint32)
    keys = jax.vmap(lambda r: keys_at(root_key(1), r, jax.numpy.asarray(places)))(rounds)
    data = np.asarray(jax.random.key_data(keys)).reshape(-1, 2)
    assert len(np.unique(data, axis=0)) == data.shape[0] == 28
    assert (np.asarray(jax.random.key_data(key_at(root_key(1), 1, PICK))) == data[7 + 6]).all()


def test_a_key_is_a_plain_threefry_of_the_counter():
    """The published test vector of Threefry-2x32-20 (Random123, kat_vectors): key 13198a2e 03707344, counter
    243f6a88 85a308d3 gives c4923a9c 483df7a0.
    """
    seed_key = jax.random.wrap_key_data(
        jax.numpy.asarray([0x13198A2E, 0x03707344], jax.numpy.uint32), impl="threefry2x32"
    )
    place = jax.numpy.asarray([0x85A308D3], jax.numpy.uint32)
    words = np.asarray(jax.random.key_data(keys_at(seed_key, 0x243F6A88, place)))
    assert [hex(w) for w in words[0]] == ["0xc4923a9c", "0x483df7a0"]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_uniforms_stay_below_one_and_are_fine_near_zero(dtype):
    words = np.array([[2**32 - 1, 2**32 - 1], [0, 0], [0, 1]], np.uint32)
    with jax.enable_x64(True):
        high, low, least = fine_uniform(
            jax.random.wrap_key_data(words, impl="threefry2x32"), np.dtype(dtype)
        ).tolist()
    assert 1 - 1e-7 < high < 1 and low == 0 and least == 2.0**-64


def test_keys_of_other_generators_are_taken(make_rule):
    arms = Arms.two_class(arms=4, correct=2, p0=0.2)
    one, two = (simulate(arms, make_rule(), 8, 64, jax.random.key(k, impl="rbg"))["reward"] for k in (0, 1))
    assert (one != two).any() and set(np.unique(one)) == {0.0, 1.0}


def test_a_draw_depends_on_its_own_counters_only():
    one, more = (rollout_keys(root_key(3), 7, 1, n, n) for n in (1, 5))
    assert (jax.random.key_data(one) == jax.random.key_data(more)[:1]).all()


def test_key_must_be_an_integer_or_a_key():
    with pytest.raises(TypeError, match=r"give an integer or jax\.random\.key"):
        root_key(jax.numpy.ones(3))


@pytest.mark.parametrize("arms", [31, 37, 65, 100, 997, 1000, 4096])
def test_many_arms_are_drawn_by_blocks_as_by_one_running_sum(arms):
    """Float64, masses over 20 orders of magnitude and some of them 0: the arm is the one whose interval of the running
    sum holds the target, but for targets within rounding of an edge.
    """
    rng = np.random.default_rng(arms)
    mass = np.exp(rng.uniform(-46, 0, arms)) * (rng.random(arms) < 0.7)
    uniform = rng.random(2000)
    with jax.enable_x64(True):
        chosen = np.asarray(choose_by_mass(jax.numpy.asarray(uniform), jax.numpy.asarray(mass)))
        ends = [
            int(x) for x in choose_by_mass(jax.numpy.asarray([0.0, 1 - 2.0**-53]), jax.numpy.asarray(mass))
        ]
    above, target = np.cumsum(mass), uniform * mass.sum()
    assert (mass[chosen] > 0).all()
    slack = 1e-13 * mass.sum()
    assert np.all((above[chosen] > target - slack) & (above[chosen] - mass[chosen] < target + slack))
    real = np.flatnonzero(mass)
    assert ends[0] == real[0]
    assert mass[ends[1]] > 0 and above[ends[1]] > mass.sum() - slack, (
        "what comes after it is lost in rounding"
    )


def test_sampling_frequencies_pass_a_chi_square_test():
    """Fixed keys, 200,000 draws; false-alarm rate 1e-4 over the choice of key."""
    mass = np.array([0.0, 0.001, 0.2, 0.3, 0.0, 0.009, 0.49, 0.0])
    with np.errstate(divide="ignore"):
        logs = np.log(mass)
    keys = rollout_keys(root_key(0), 0, 7, 30_000, 30_000)
    uniform = fine_uniform(keys, np.dtype("float32"))
    draws = np.asarray(jax.jit(choose)(uniform, logs.astype(np.float32)))
    counts = np.bincount(draws, minlength=8)
    real = mass > 0
    assert counts[~real].sum() == 0
    assert stats.chisquare(counts[real], 210_000 * mass[real]).pvalue > 1e-4


def test_leaves_of_a_tree_are_drawn_with_their_probability(make_rule, token_model):
    """Mean sampled reward of round 0 over 4096 seeds; 4.5 standard errors: false-alarm rate 7e-6."""
    tree = token_model(0).tree()
    curves = simulate(TreeArms.from_tree(tree), make_rule(), 1, 4096, 11)
    p = tree.success()
    assert curves["success"] == pytest.approx(p, rel=1e-5)
    assert abs(curves["reward"].mean() - p) < 4.5 * np.sqrt(p * (1 - p) / 4096)


def test_success_is_a_martingale_residual_away_from_the_reward(make_rule, token_model):
    """Mean of reward - p over all rounds; 4.5 standard errors (the residuals are uncorrelated)."""
    curves = simulate(TreeArms.from_tree(token_model(0).tree()), make_rule(0.1), 50, 512, 2)
    p = curves["success"]
    residual = curves["reward"] - p
    assert abs(residual.mean()) < 4.5 * np.sqrt((p * (1 - p)).sum()) / p.size
    assert p[:, -1].mean() > p[:, 0].mean() + 0.05


@pytest.mark.parametrize(("p0", "wanted"), [(0.05, 24.84), (0.2, 6.52)])
def test_time_to_half_follows_the_mean_field(make_rule, p0, wanted):
    """T_half = (1/eta) [1/p0 - 1/(1-p0) + 2 ln((1-p0)/p0)] for dp/dt = eta p^2 (1-p)^2, K large.

    24.84 and 6.52 in units of 1/eta. Noise, the step's curvature and the 100 arms leave 1 to 2%; allowed 5%.
    """
    eta = 0.2 * p0
    formula = 1 / p0 - 1 / (1 - p0) + 2 * np.log((1 - p0) / p0)
    assert formula == pytest.approx(wanted, abs=0.005)
    rounds = int(1.2 * formula / eta)
    arms = Arms.two_class(arms=100, correct=1, p0=p0)
    mean = simulate(arms, make_rule(eta), rounds, 64, 0).mean("success")
    assert np.argmax(mean >= 0.5) * eta == pytest.approx(formula, rel=0.05)


def test_mean_field_of_one_correct_arm_among_a_thousand():
    """Oracle of the closed form itself, K = 1000, p0 = .02: 56.74 integrated, 56.76 by the formula."""
    p, t, step = 0.02, 0.0, 1e-3
    while p < 0.5:
        rate = p**2 * ((1 - p) ** 2 + (1 - p) ** 2 / 999)
        p, t = p + step * rate, t + step
    formula = 1 / 0.02 - 1 / 0.98 + 2 * np.log(0.98 / 0.02)
    assert formula == pytest.approx(56.76, abs=0.005) and t == pytest.approx(56.74, abs=0.05)


def test_compiled_code_is_reused_for_arms_of_the_same_shape(make_rule, token_model):
    rule = make_rule(0.123)
    before = None
    for seed in range(3):
        simulate(TreeArms.from_tree(token_model(seed).tree()), rule, 5, 8, seed)
        size = run_seeds._cache_size()  # type: ignore[attr-defined]
        assert before is None or size == before
        before = size


def test_replay_gives_the_curve_of_the_draws_it_is_given(make_rule):
    """Replaying a simulation's own draws gives its own curve: two arms, so that reward tells the arm."""
    arms, rule = Arms.two_class(arms=2, correct=1, p0=0.3), make_rule(0.4)
    curves = simulate(arms, rule, 40, 16, 9)
    choices = (curves["reward"] == 0).astype(int)[..., None]
    got = replay(arms, rule, choices, curves["reward"][..., None])
    assert np.abs(got - curves["success"]).max() < 1e-6


def test_rewards_given_to_replay_stand_in_for_the_arms_own(make_rule):
    arms = Arms.two_class(arms=3, correct=1, p0=0.3)
    choices = np.ones((1, 5, 1), dtype=int)
    assert np.diff(replay(arms, make_rule(), choices, np.ones((1, 5, 1))))[0].max() < 0
    assert np.ptp(replay(arms, make_rule(), choices, np.zeros((1, 5, 1)))) < 1e-7


@pytest.mark.usefixtures("x64")
def test_unknown_choices_push_nothing(make_rule, token_model):
    arms, rng = TreeArms.from_tree(token_model(0).tree()), np.random.default_rng(0)
    leaves = len(arms.reward)
    choices = rng.integers(0, leaves, size=(2, 10, 1))
    choices[:, ::2] = -1
    rewards = rng.random((2, 10, 1))
    p = replay(arms, make_rule(), choices, rewards)
    known = replay(arms, make_rule(), choices[:, 1::2], rewards[:, 1::2])
    assert np.abs(p[:, 1::2] - known).max() < 1e-14 and np.abs(p[:, ::2][:, 1:] - known[:, 1:]).max() < 1e-2
    assert (p[:, 0] == p[:, 1]).all()


@pytest.mark.usefixtures("x64")
def test_an_unknown_choice_still_counts_in_its_groups_baseline(make_rule):
    arms, rule = Arms.two_class(arms=3, correct=1, p0=0.3), make_rule(0.5, "leave_one_out", 2)
    p = replay(arms, rule, [[[0, -1]] * 2], [[[1.0, 0.0]] * 2])[0]
    raw = replay(arms, make_rule(0.25), [[[0]] * 2], [[[1.0]] * 2])[0]
    assert p == pytest.approx(raw, abs=1e-14)


def test_an_optimiser_with_memory_skips_an_unknown_round(make_rule):
    arms = Arms.two_class(arms=3, correct=1, p0=0.3)
    rule = make_rule(optimiser={"kind": "adam", "eta": 0.1})
    p = replay(arms, rule, [[[0], [-1], [0]]], np.ones((1, 3, 1)))[0]
    assert p[1] == p[2] and p[0] != p[1]


@pytest.mark.parametrize(
    ("choices", "rewards", "message"),
    [
        ([[[3]]], [[[1.0]]], r"choices\[0, 0, 0\] = 3; give choices -1 \(unknown\) to 2"),
        ([[[0]]], [[[np.nan]]], r"rewards\[0, 0, 0\] = nan"),
        ([[[0, 1]]], [[[1.0, 1.0]]], r"give both \(replicas, rounds, 1\)"),
    ],
)
def test_bad_draws_are_named(make_rule, choices, rewards, message):
    with pytest.raises(Refusal, match=message):
        replay(Arms.two_class(arms=3, correct=1, p0=0.3), make_rule(), choices, rewards)


@pytest.mark.parametrize("name", ["rounds", "seeds", "chunk"])
def test_counts_below_one_are_named(make_rule, name):
    counts = {"rounds": 2, "seeds": 2, "chunk": 2} | {name: 0}
    arms = Arms.two_class(arms=3, correct=1, p0=0.3)
    with pytest.raises(Refusal, match=f"{name} = 0; give at least 1"):
        simulate(arms, make_rule(), counts["rounds"], counts["seeds"], 0, chunk=counts["chunk"])


def test_enumeration_needs_one_rollout(make_rule):
    with pytest.raises(Refusal, match=r"draws 2 rollouts; enumeration needs one rollout"):
        expected_step(Arms.two_class(arms=3, correct=1, p0=0.3), make_rule(rollouts=2))
