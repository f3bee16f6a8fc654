"""The probe on the tiny model, where the truth is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from llm_bridge.probe.masses import masses
from llm_bridge.probe.scores import atom_scores, displaced, gram
from llm_bridge.probe.survey import NoCorrectRollout, collect, draw_rollouts
from llm_bridge.rollouts.rollouts import read_prompt, score
from tests.llm_bridge.conftest import probed
from theory.trees.prefix_tree import Atom


def test_probe_holds_the_exact_masses(split, question, prompt) -> None:
    probe = probed(split, question, keep="correct")
    for tokens, mass in zip(probe.responses.tokens, probe.responses.mass, strict=True):
        with torch.no_grad():
            hidden, _ = split.trunk.run(torch.tensor([tokens]), past=prompt.past)
        y = torch.tensor([tokens])
        logs = score(
            split, prompt, split.adapters.fresh(1), torch.zeros(1, dtype=torch.long), hidden[:, :-1], y
        )
        assert mass == pytest.approx(float(logs.sum().exp().detach()), rel=1e-9)
    assert probe.responses.counts.sum() == 400
    assert probe.tree().success() == pytest.approx(probe.p0, rel=1e-9)


def test_edges_scores_are_centred(split, question, prompt) -> None:
    """sum_e pi(e) g(e) = 0 at every node, the rest edge included: its score is that of the set, exactly."""
    probe = probed(split, question, cut=10.0)
    edges = probe.layout.edges
    assert any(e.kind == "rest" for e in edges)
    scores = atom_scores(split, prompt, split.adapters.fresh(1), probe.layout.atoms).numpy()
    for node in probe.layout.nodes():
        total = sum(e.probability * scores[e.atom] for e in edges if e.node == node)
        assert np.abs(total).max() < 1e-9


def test_score_is_the_derivative_of_the_log_probability(split, prompt) -> None:
    """Finite differences along the score itself: d/ds log pi(theta + s g) = g.g at s = 0."""
    atoms = [Atom((7, 12), 0), Atom((1,), 1, (2, 12)), Atom((7, 12), 1)]
    scores = atom_scores(split, prompt, split.adapters.fresh(1), atoms)
    norms = gram(scores).diagonal().numpy()
    from llm_bridge.probe.scores import _log_probabilities, _read_of, _trunk_of

    for i, atom in enumerate(atoms):
        values = []
        for step in (-1e-5, 1e-5):
            factors, at = split.adapters.fresh(1), 0
            for x in split.adapters.trainable(factors):
                with torch.no_grad():
                    x += step * scores[i, at : at + x.numel()].reshape(x.shape)
                at += x.numel()
            read = _trunk_of(split, prompt, [_read_of(atom)], 1)
            values.append(float(_log_probabilities(split, prompt, factors, [atom], read).detach()))
        # The difference of two logits of size 10 is rounded by some 1e-16, and that is divided by 2e-5.
        assert (values[1] - values[0]) / 2e-5 == pytest.approx(norms[i], rel=1e-5, abs=5e-11)


def test_scores_measured_together_are_those_measured_alone(split, prompt) -> None:
    """Sequences that begin with one another share the trunk, whatever the chunk; the prompt's end is one of them."""
    atoms = [
        Atom((7, 12), 0), Atom((7,), 0), Atom((), 0, (1, 7)), Atom((7,), 1, (12,)), Atom((1, 0, 12), 1),
        Atom((1, 0), 2, (12, 3)), Atom((1, 1, 3), 2), Atom((2, 2, 2), 0),
    ]  # fmt: skip
    base = split.adapters.fresh(1)
    alone = torch.cat([atom_scores(split, prompt, base, [atom]) for atom in atoms])
    for chunk in (2, 32):
        together = atom_scores(split, prompt, base, atoms, chunk=chunk)
        np.testing.assert_allclose(together.numpy(), alone.numpy(), atol=1e-12)


def test_prefix_sharing_changes_no_number(split, tiny, prompt) -> None:
    big = draw_rollouts(split, prompt, 64, 3, tiny.end_tokens, seed=5, batch=64)
    small = draw_rollouts(split, prompt, 64, 3, tiny.end_tokens, seed=5, batch=4)
    a, b = collect(big, lambda t: 0.0), collect(small, lambda t: 0.0)
    assert a.tokens == b.tokens
    np.testing.assert_array_equal(a.counts, b.counts)
    np.testing.assert_allclose(a.mass, b.mass, rtol=1e-9)


def test_no_correct_rollout_says_how_small_p0_is_and_what_to_do(split, question) -> None:
    with pytest.raises(
        NoCorrectRollout, match=r"^no correct.*0\.0075.*--probe-rollouts.*easier query"
    ) as caught:
        probed(split, question._replace(reward_of=lambda t: 0.0))
    # 0.05^(1/400) = exp(-2.9957/400): the largest p0 under which 400 misses are a 5% event.
    assert caught.value.upper == pytest.approx(0.00746, abs=1e-5)


def test_a_network_is_probed_where_it_is(split, question, prompt) -> None:
    """Its masses, its scores, and draws of its own stream; and moved on from there, it moves along these scores."""
    factors = {name: (down, torch.full_like(up, 0.5)) for name, (down, up) in split.adapters.fresh(1).items()}
    own, other, base = (
        probed(split, question, keep="correct", **more)
        for more in ({"factors": factors}, {"factors": factors, "stream": 2**63 + 2**62}, {})
    )
    np.testing.assert_allclose(
        own.responses.mass, masses(split, prompt, factors, 1, own.responses.tokens)[0], rtol=1e-9
    )
    assert own.found != pytest.approx(base.found, rel=0.05)
    assert dict(zip(own.responses.tokens, own.responses.counts, strict=True)) != dict(
        zip(other.responses.tokens, other.responses.counts, strict=True)
    )
    atoms = own.layout.atoms
    scores = atom_scores(split, prompt, factors, atoms)
    np.testing.assert_allclose(own.gram, gram(scores).numpy(), rtol=1e-9)
    shares = np.random.default_rng(0).normal(size=(2, len(atoms)))
    moved = displaced(split, [(prompt, atoms, shares)], base=factors)
    gone = [torch.cat([up.reshape(len(up), -1) for _, up in f.values()], dim=1) for f in (moved, factors)]
    torch.testing.assert_close(gone[0] - gone[1], torch.from_numpy(shares) @ scores, rtol=1e-9, atol=1e-12)
    assert not any(x.requires_grad for pair in (*moved.values(), *factors.values()) for x in pair)


def test_moved_along_two_queries_it_is_moved_along_the_sum(split, tiny, question, prompt) -> None:
    """All scores are taken at the same base, whatever the order; each atom is told of once."""
    other = read_prompt(split, tiny.encode_prompt("1+1="))
    factors = {name: (down, torch.full_like(up, 0.5)) for name, (down, up) in split.adapters.fresh(1).items()}
    asked = [
        (prompt, [Atom((7, 12), 0), Atom((1,), 0)]),
        (other, [Atom((2, 12), 1), Atom((), 0, (2, 3)), Atom((4,), 0)]),
    ]
    rng = np.random.default_rng(0)
    paths = [(p, atoms, rng.normal(size=(3, len(atoms)))) for p, atoms in asked]
    told: list[tuple[int, int]] = []
    moved = displaced(split, paths, base=factors, chunk=2, progress=lambda *x: told.append(x))
    gone = [torch.cat([up.reshape(len(up), -1) for _, up in f.values()], dim=1) for f in (moved, factors)]
    want = sum(torch.from_numpy(c) @ atom_scores(split, p, factors, atoms) for p, atoms, c in paths)
    torch.testing.assert_close(gone[0] - gone[1], want, rtol=1e-9, atol=1e-12)
    again = displaced(split, paths[::-1], base=factors)
    for pair, back in zip(moved.values(), again.values(), strict=True):
        torch.testing.assert_close(pair[1], back[1], rtol=1e-9, atol=1e-12)
    assert told == [(0, 5), (2, 5), (4, 5), (5, 5)]
