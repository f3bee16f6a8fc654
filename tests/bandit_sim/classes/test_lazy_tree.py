"""The lazy tree against the same tree listed in full, and against itself in smaller buffers."""

import jax.numpy as jnp
import numpy as np
import pytest

from bandit_sim import simulate
from bandit_sim.arms.lazy_tree import LazyTree
from bandit_sim.classes import lazy_tree
from bandit_sim.engines import tree
from theory.pay import Noisy, PlusMinus
from theory.refusal import Refusal
from theory.rules.rule import Rule

LAW = np.array([[0.2, 0.5, 0.3], [0.3, 0.3, 0.4], [0.6, 0.2, 0.2]])
CORRECT = [(0,), (1, 2, 1), (2, 1, 0)]
AT = np.arange(40)


def any_rule(**fields):
    return Rule.model_validate({"optimiser": {"kind": "sgd", "eta": 0.8}} | fields)


LEAVE_ONE_OUT = {"signal": {"kind": "leave_one_out"}, "rollouts": 3}


@pytest.mark.parametrize(
    ("fields", "pay"),
    [
        (LEAVE_ONE_OUT | {"aggregation": {"kind": "token_mean"}, "kl": {"kind": "k3", "beta": 0.1}}, None),
        (
            {"optimiser": {"kind": "adam", "eta": 0.2}, "rollouts": 2},
            Noisy(false_positive=0.2, pays=PlusMinus()),
        ),
    ],
)
@pytest.mark.usefixtures("x64")
def test_it_is_the_listed_tree_draw_by_draw(fields, pay):
    """The same keys give the same responses, so that whole trajectories agree. A rough base law, 13 prefixes."""
    arms, rule = LazyTree.of(LAW, 3, CORRECT, roughness=0.7, seed=4), any_rule(**fields)
    listed = simulate(arms.enumerate(), rule, 40, 20, 5, pay=pay)
    lazy = lazy_tree.run(arms, rule, AT, 20, 5, pay=pay)
    for name in ("success", "reward"):
        assert np.abs(lazy[name] - listed[name]).max() < 1e-9
    assert np.ptp(lazy["success"][:, -1]) > 0.01


@pytest.mark.usefixtures("x64")
def test_no_size_of_buffer_changes_anything():
    """Four prefixes are soon too few; those seeds start again with 16. Thinning changes nothing either."""
    arms, rule = (
        LazyTree.of(np.full(3, 1 / 3), 4, [(1, 2, 0), (2, 1, 1, 1)], roughness=1.0, seed=1),
        any_rule(**LEAVE_ONE_OUT),
    )
    observe = ("success", "reward", "length", "nodes")
    large = lazy_tree.run(arms, rule, AT, 6, 3, observe=observe, nodes=64)
    small = lazy_tree.run(arms, rule, AT, 6, 3, observe=observe, nodes=4)
    assert 4 < large["nodes"].max() < 64
    assert large["nodes"][:, 0] == pytest.approx(1) and np.all(np.diff(large["nodes"]) >= 0)
    thin = lazy_tree.run(arms, rule, [0, 7, 39], range(2, 8), 3, observe=observe, nodes=64)
    for name in observe:
        assert np.abs(large[name] - small[name]).max() < 1e-12
        assert np.abs(large[name][2:, [0, 7, 39]] - thin[name][:4]).max() < 1e-12


def ends_well(tokens, length):
    """Reward 1 where the last but one token is 1, of two tokens at least."""
    return jnp.where(length >= 2, tokens[jnp.maximum(length.astype(jnp.int32) - 2, 0)] == 1, False)


@pytest.mark.usefixtures("x64")
def test_a_reward_function_pays_what_the_list_of_its_responses_does():
    listed = LazyTree(law=np.log(LAW), pays=ends_well).enumerate()
    wins = [tuple(listed.token[i, : listed.length[i]].tolist()) for i in np.flatnonzero(listed.reward)]
    assert (1, 0) in wins and (2, 1, 2) in wins and (1, 1, 0) in wins and (2, 2, 1) not in wins
    a = lazy_tree.run(
        LazyTree(law=np.log(LAW), pays=ends_well), any_rule(), AT, 8, 0, observe=("reward", "length")
    )
    b = lazy_tree.run(LazyTree.of(LAW, 3, wins), any_rule(), AT, 8, 0, observe=("reward", "length"))
    assert (a["reward"] == b["reward"]).all() and (a["length"] == b["length"]).all() and a["reward"].any()


@pytest.mark.usefixtures("x64")
def test_a_tree_of_more_responses_than_can_be_listed_learns():
    """50^12 responses; p0 = .8^12 + .8^11 .2 / 49 by hand, the two correct ones agreeing up to the last token."""
    law = np.full(50, 0.2 / 49)
    law[7] = 0.8
    arms = LazyTree.of(law, 12, [(7,) * 12, (7,) * 11 + (8,)])
    rule = any_rule(optimiser={"kind": "sgd", "eta": 1.0}, rollouts=4)
    curves = lazy_tree.run(arms, rule, [0, 80], 4, 1, observe=("success", "nodes"))
    assert curves["success"][:, 0] == pytest.approx(0.8**12 + 0.8**11 * 0.2 / 49, rel=1e-9)
    assert curves["nodes"][:, 0] == pytest.approx(1) and curves["nodes"][:, 1] == pytest.approx(12)
    assert np.all(curves["success"][:, 1] > 0.3)


@pytest.mark.parametrize(
    "change",
    [
        {"roughness": 0.6},
        {"seed": 2},
        {"end": 1},
        {"law": np.log(LAW[::-1])},
        {"correct": np.array([[0, -1, -1]])},
    ],
)
def test_every_field_changes_the_success(change):
    fields = vars(LazyTree.of(LAW, 3, [(0,), (2, 2, 2)], roughness=0.5, seed=1))
    before, after = LazyTree(**fields).enumerate(), LazyTree(**(fields | change)).enumerate()
    p = [float(tree.success(arms, tree.init(arms))) for arms in (before, after)]
    assert abs(p[0] - p[1]) > 1e-3


def test_what_a_lazy_tree_cannot_do_is_refused():
    arms = LazyTree.of(LAW, 3, CORRECT)
    run = lazy_tree.run
    with pytest.raises(Refusal, match="needs the list `correct`"):
        run(LazyTree(law=np.log(LAW), pays=ends_well), any_rule(), [0], 1, 0)
    with pytest.raises(Refusal, match="'entropy' is not recorded by a lazy tree; list the tree"):
        run(arms, any_rule(), [0], 1, 0, observe=("entropy",))
    with pytest.raises(Refusal, match="weight_decay moves prefixes"):
        run(arms, any_rule(optimiser={"kind": "adam", "eta": 0.1, "weight_decay": 0.1}), [0], 1, 0)
    with pytest.raises(Refusal, match="give increasing round numbers"):
        run(arms, any_rule(), [3, 3], 1, 0)
    with pytest.raises(Refusal, match="nodes = 0"):
        run(arms, any_rule(), [0], 1, 0, nodes=0)
    with pytest.raises(Refusal, match="misjudges nothing"):
        run(arms, any_rule(), [0], 1, 0, pay=Noisy())
    for wrong in ([(1,)], [(0, 1)], [(1, 2, 3)], [(0,), (0,)], []):
        with pytest.raises(Refusal, match="correct"):
            LazyTree.of(LAW, 3, wrong)
    with pytest.raises(Refusal, match="a seed needs roughness"):
        LazyTree.of(LAW, 3, CORRECT, seed=1)
    with pytest.raises(Refusal, match="exactly one of correct"):
        LazyTree(law=np.log(LAW))
    with pytest.raises(Refusal, match="law has shape"):
        LazyTree.of(LAW, 4, CORRECT)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"signal": "greedy"}, r"signal greedy, which draws helpers"),
        ({"epochs": 2}, r"epochs = 2"),
        ({"entropy": {"kind": "exact", "beta": 0.1}}, r"entropy exact"),
        ({"kl": {"kind": "k2", "beta": 0.1, "refresh": 2}}, r"kl refresh"),
    ],
)
def test_what_a_lazy_tree_does_not_carry_is_refused(make_rule, fields, message):
    arms = LazyTree.of([0.5, 0.5], 2, [(1, 0)])
    with pytest.raises(Refusal, match=message):
        lazy_tree.run(arms, make_rule(**fields), [0], 1, 0)


def test_simulate_takes_a_lazy_tree_as_any_other(make_rule):
    arms, rule = LazyTree.of(LAW, 3, CORRECT), make_rule(0.5)
    seen: list[tuple[int, int]] = []
    curves = simulate(
        arms, rule, 21, 70, 3, observe=("success", "length"), every=10, progress=lambda *at: seen.append(at)
    )
    alone = lazy_tree.run(arms, rule, [0, 10, 20], 70, 3, observe=("success", "length"))
    assert curves.at.tolist() == [0, 10, 20] and seen == [(64, 70), (70, 70)]
    for name in alone:
        assert np.array_equal(curves[name], alone[name])
    with pytest.raises(Refusal, match="engine = 'lumped' with LazyTree; these arms have one engine"):
        simulate(arms, rule, 2, 2, 0, engine="lumped")
    with pytest.raises(Refusal, match="devices: a lazy tree"):
        simulate(arms, rule, 2, 2, 0, devices=[])
