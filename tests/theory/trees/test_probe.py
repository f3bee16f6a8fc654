"""Probe and prefix tree: masses, where the tree is cut, and what lies beyond the cut."""

from __future__ import annotations

from functools import cache

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from theory.refusal import Refusal
from theory.trees.prefix_tree import Responses, grow
from theory.trees.probe import Probe

VOCABULARY, LENGTH, END = 4, 4, 0


def sampled(seed: int, rollouts: int) -> tuple[Responses, float]:
    """Rollouts of a random token process over 4 tokens (0 ends), and its exact success probability."""
    rng = np.random.default_rng(seed)
    table: dict[tuple[int, ...], np.ndarray] = {}
    salt = int(rng.integers(1 << 30))

    def at(prefix: tuple[int, ...]) -> np.ndarray:
        if prefix not in table:
            table[prefix] = np.random.default_rng((salt, *prefix)).dirichlet(np.full(VOCABULARY, 0.7))
        return table[prefix]

    def good(y: tuple[int, ...]) -> float:
        return float(sum(y) % 3 == 1)

    def walk(prefix: tuple[int, ...], mass: float) -> float:
        if prefix and (prefix[-1] == END or len(prefix) == LENGTH):
            return mass * good(prefix)
        return sum(walk((*prefix, v), mass * at(prefix)[v]) for v in range(VOCABULARY))

    counts: dict[tuple[int, ...], int] = {}
    for _ in range(rollouts):
        y: tuple[int, ...] = ()
        while not y or (y[-1] != END and len(y) < LENGTH):
            y = (*y, int(rng.choice(VOCABULARY, p=at(y))))
        counts[y] = counts.get(y, 0) + 1
    order = sorted(counts)
    return (
        Responses(
            tuple(order),
            tuple(tuple(float(np.log(at(y[:t])[y[t]])) for t in range(len(y))) for y in order),
            np.array([counts[y] for y in order]),
            np.array([good(y) for y in order]),
            np.array([y[-1] == END for y in order]),
        ),
        walk((), 1.0),
    )


def probe_of(responses: Responses, seed: int = 0, **grow_options: object) -> Probe:
    """A probe whose scores are random vectors, centred at every node as real scores are."""
    layout = grow(responses, vocabulary=VOCABULARY, **grow_options)  # pyright: ignore[reportArgumentType]
    rng = np.random.default_rng(seed)
    scores = rng.normal(size=(len(layout.atoms), 6))
    for node in layout.nodes():
        edges = [e for e in layout.edges if e.node == node]
        mean = sum(e.probability * scores[e.atom] for e in edges)
        for e in edges:
            scores[e.atom] -= mean
    return Probe(responses, layout, scores @ scores.T)


@given(
    st.integers(0, 10**6),
    st.integers(20, 300),
    st.sampled_from([2.0, 10.0, 50.0]),
    st.sampled_from(["correct", "all"]),
)
def test_tree_is_a_distribution_with_the_probe_s_p0(seed: int, rollouts: int, cut: float, keep: str) -> None:
    responses, _ = sampled(seed, rollouts)
    if not np.any(responses.rewards > 0):
        return
    probe = probe_of(responses, cut=cut, keep=keep)
    tree = probe.tree()  # ResponseTree itself rejects nodes and leaves that do not sum to one
    assert tree.success() <= probe.p0 + 1e-6
    assert np.all(tree.probability >= 0)
    assert np.allclose(tree.kernel, tree.kernel.T)


@given(st.integers(0, 10**6), st.integers(20, 300))
def test_every_response_has_a_leaf_of_its_reward(seed: int, rollouts: int) -> None:
    responses, _ = sampled(seed, rollouts)
    probe = probe_of(responses, cut=5.0)
    tree = probe.tree()
    for tokens, reward in zip(responses.tokens, responses.rewards, strict=True):
        leaf = probe.leaf_of(tokens, reward)
        assert 0 <= leaf < len(tree.reward)
        if reward > 0:
            assert tree.reward[leaf] == 1


@given(st.integers(0, 10**6))
def test_centred_scores_stay_centred_at_nodes_and_tails(seed: int) -> None:
    responses, _ = sampled(seed, 200)
    tree = probe_of(responses, cut=8.0).tree()
    for node in np.unique(tree.node):
        pull = tree.kernel @ np.where(tree.node == node, tree.probability, 0)
        assert np.abs(pull).max() < 1e-6 * max(1.0, np.abs(tree.kernel).max())


def test_p0_is_unbiased_and_its_interval_covers() -> None:
    """400 probes of 100 rollouts, fixed seeds. Bias: |z| < 3 (false alarm .003). Coverage of the 95% interval at
    least 90%: a true 95% falls below that with probability 2e-5 (binomial, 400 trials)."""
    errors, inside = [], []
    for seed in range(400):
        responses, truth = _again(seed, 100)
        probe = Probe(responses, grow(responses, vocabulary=VOCABULARY), np.zeros((0, 0)))
        low, high = probe.p0_interval()
        errors.append(probe.p0 - truth)
        inside.append(low <= truth <= high)
    assert abs(np.mean(errors)) < 3 * np.std(errors) / np.sqrt(len(errors))
    assert np.mean(inside) >= 0.9


@cache
def _population() -> Responses:
    return sampled(7, 4000)[0]


def _again(draw: int, rollouts: int) -> tuple[Responses, float]:
    """Fresh rollouts (draw) of one fixed process, and its exact p."""
    base = _population()
    rng = np.random.default_rng(draw)
    share = base.mass / base.mass.sum()
    counts = rng.multinomial(rollouts, share)
    kept = np.flatnonzero(counts)
    return (
        Responses(
            tuple(base.tokens[i] for i in kept),
            tuple(base.logprobs[i] for i in kept),
            counts[kept],
            base.rewards[kept],
            base.ended[kept],
        ),
        float(share @ base.rewards),
    )


def test_cut_is_by_exact_probability_never_by_counts() -> None:
    responses, _ = sampled(3, 200)
    layout = grow(responses, vocabulary=VOCABULARY, cut=10.0)
    mass: dict[tuple[int, ...], float] = {(): 1.0}
    for tokens, logs in zip(responses.tokens, responses.logprobs, strict=True):
        for d in range(1, len(tokens) + 1):
            mass[tokens[:d]] = float(np.exp(sum(logs[:d])))
    assert all(mass[node] * 200 >= 10 or node == () for node in layout.nodes())


@given(st.integers(0, 10**6), st.sampled_from([1.0, 3.0, 8.0]), st.sampled_from([8.0, 30.0]))
def test_every_likely_token_of_a_resolved_node_has_an_edge_of_its_own(
    seed: int, leaf_cut: float, cut: float
) -> None:
    responses, _ = sampled(seed, 200)
    layout = grow(responses, vocabulary=VOCABULARY, cut=cut, leaf_cut=leaf_cut, keep="all")
    nodes = set(layout.nodes())
    own: dict[tuple[int, ...], str] = {
        (*edge.node, edge.token): edge.kind for edge in layout.edges if edge.kind != "rest"
    }
    for tokens, logs in zip(responses.tokens, responses.logprobs, strict=True):
        for depth in range(1, len(tokens) + 1):
            prefix, visits = tokens[:depth], 200 * np.exp(sum(logs[:depth]))
            if prefix[:-1] in nodes:
                assert (prefix in own) == (visits >= leaf_cut)
            if prefix in own:
                whole, resolved = depth == len(tokens), visits >= cut
                assert own[prefix] == ("leaf" if whole else "child" if resolved else "stub")


@given(st.integers(0, 10**6), st.sampled_from(["correct", "all"]))
def test_a_response_ends_in_a_leaf_behind_the_edge_it_leaves_by(seed: int, keep: str) -> None:
    responses, _ = sampled(seed, 200)
    probe = probe_of(responses, cut=12.0, leaf_cut=2.0, keep=keep)
    tree = probe.tree()
    for i, (tokens, reward) in enumerate(zip(responses.tokens, responses.rewards, strict=True)):
        leaf = probe.leaf_of(tokens, reward)
        assert tree.path[leaf, probe.layout.exits[i]] == 1
        assert tree.reward[leaf] == reward


def test_a_response_that_stops_inside_the_tree_is_refused() -> None:
    responses, _ = sampled(5, 300)
    probe = probe_of(responses, cut=5.0)
    node = max(probe.layout.nodes(), key=len)
    with pytest.raises(Refusal, match="ends inside the tree"):
        probe.leaf_of(node, 1.0)


def test_tokens_that_move_as_one_fall_behind_those_that_move_apart() -> None:
    """One-token responses with logits theta.g, a hundred draws of them. The mean score of a rest leaves out what
    its tokens gain by moving apart (Jensen), so that the answer comes out too high; the error shrinks as tokens
    get edges of their own, and with all of them it is gone."""
    rng = np.random.default_rng(0)
    cuts = (60.0, 20.0, 5.0, 0.0)
    errors = np.zeros((100, len(cuts)))
    for draw in range(100):
        mass = -np.sort(-rng.dirichlet(np.full(60, 0.5)))
        responses = Responses(
            tuple((v,) for v in range(60)),
            tuple((float(np.log(m)),) for m in mass),
            np.full(60, 30),
            np.array([1.0, *np.zeros(59)]),  # the likeliest token is the answer: it always has an edge
            np.ones(60, dtype=bool),
        )
        scores = rng.normal(size=(60, 8))
        scores -= mass @ scores
        theta = 0.5 * rng.normal(size=8)
        truth = mass * np.exp(scores @ theta)
        for c, leaf_cut in enumerate(cuts):
            layout = grow(responses, vocabulary=60, cut=1e9, leaf_cut=leaf_cut, keep="all")
            held = [set(atom.complement or ()) for atom in layout.atoms]
            own = np.array(
                [
                    scores[atom.tokens[0]]
                    if atom.complement is None
                    else np.average(scores, 0, [0 if v in kept else m for v, m in enumerate(mass)])
                    for atom, kept in zip(layout.atoms, held, strict=True)
                ]
            )
            tree = Probe(responses, layout, own @ own.T).tree()
            errors[draw, c] = tree.success(own @ theta) - truth[0] / truth.sum()
    means = errors.mean(axis=0)
    assert np.all(np.diff(means) < 0) and means[0] > 0.01
    assert np.abs(errors[:, -1]).max() < 1e-9


def test_whole_tree_has_no_rest_and_no_tail() -> None:
    base, _ = sampled(11, 4000)
    full = grow(base, vocabulary=VOCABULARY, cut=0.0, leaf_cut=0.0, keep="all")
    assert {edge.kind for edge in full.edges if len(edge.node) == 0} == {"child", "leaf"}


def test_a_single_member_does_not_blow_up_where_its_class_is_the_frequent_one() -> None:
    """A tail whose only members are correct and hold nearly all of the rest: nothing may be deduced from them."""
    logs = (float(np.log(0.5)), float(np.log(0.5)))
    responses = Responses(
        ((1, 0), (2, 0), (3, 1)),
        (logs, logs, (float(np.log(0.001)), float(np.log(0.9)))),
        np.array([60, 60, 1]),
        np.array([1.0, 0.0, 1.0]),
        np.array([True, True, False]),
    )
    tree = probe_of(responses, cut=10.0).tree()
    assert np.abs(tree.kernel).max() < 100


def test_bootstrap_moves_only_what_is_uncertain() -> None:
    responses, _ = sampled(5, 300)
    probe = probe_of(responses, cut=10.0)
    plain, drawn = probe.tree(), probe.bootstrap(1)
    resolved = len(probe.layout.edges)
    np.testing.assert_array_equal(plain.probability[:resolved], drawn.probability[:resolved])
    assert plain.path.shape == drawn.path.shape
    if probe.seen(1):
        assert not np.array_equal(plain.probability[resolved:], drawn.probability[resolved:])


def test_tree_rejects_what_is_no_distribution() -> None:
    responses, _ = sampled(5, 300)
    tree = probe_of(responses, cut=10.0).tree()
    from dataclasses import replace

    with pytest.raises(Refusal, match="sums to"):
        replace(tree, probability=tree.probability * 0.9)
    with pytest.raises(Refusal, match="shape"):
        replace(tree, depth=tree.depth[:-1])
    broken = tree.kernel.copy()
    broken[0, 0] = np.nan
    with pytest.raises(Refusal, match="finite"):
        replace(tree, kernel=broken)
