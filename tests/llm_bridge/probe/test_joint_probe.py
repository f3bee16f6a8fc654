"""Several queries on one model: the Gram matrix of all scores, and what training on one does to another."""

from __future__ import annotations

from dataclasses import replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from bandit_sim import forest
from bandit_sim.engines import tree_kernel
from llm_bridge.models.language_model import load_model
from llm_bridge.network.split import SplitModel
from llm_bridge.probe.measure import measure
from llm_bridge.probe.scores import atom_scores, gram
from llm_bridge.probe.spec import ProbeSpec
from llm_bridge.probe.survey import NoCorrectRollout
from llm_bridge.rollouts.asked import Question
from llm_bridge.rollouts.rollouts import read_prompt
from tests.llm_bridge.conftest import shaken
from theory.refusal import Refusal
from theory.trees.joint_probe import JointProbe, sequences

PROMPTS, RIGHT = ("3+4=", "1+1=", "2+6="), ("7", "2", "8")
WHOLE = ProbeSpec(rollouts=3000, cut=0, leaf_cut=0)


@pytest.fixture(scope="module")
def questions(tiny) -> list[Question]:
    return [
        Question(
            tiny.encode_prompt(prompt),
            lambda t, right=right: float(tiny.decode(list(t)) == right),
            tiny.end_tokens,
        )
        for prompt, right in zip(PROMPTS, RIGHT, strict=True)
    ]


@pytest.fixture(scope="module")
def joint(split, questions) -> JointProbe:
    return measure(split, questions, WHOLE, max_tokens=2, seed=0)


def test_the_first_query_is_probed_as_it_would_be_alone(split, questions, joint) -> None:
    """Alone its scores are in memory, among others in a file: their products are summed in another order."""
    whole = measure(split, questions[:1], WHOLE, max_tokens=2, seed=0)
    (alone,) = whole.probes
    assert whole.gram is alone.gram and alone.meta.query == 0
    assert alone.responses.tokens == joint.probes[0].responses.tokens
    scale = np.abs(alone.gram).max()
    np.testing.assert_allclose(joint.probes[0].gram, alone.gram, atol=1e-13 * scale)


def test_in_float32_the_file_costs_no_more_than_its_precision(tiny, split, questions) -> None:
    """Products of 8192 columns are summed in float32 there: 2e-7 of the largest entry were seen."""
    coarse = SplitModel(load_model("tiny-arithmetic").model, split.adapters.spec)
    some = ProbeSpec(rollouts=300)
    joint = measure(coarse, questions[:2], some, max_tokens=2, seed=0)
    alone = measure(coarse, questions[:1], some, max_tokens=2, seed=0)
    first = joint.probes[0]
    assert first.responses.logprobs == alone.probes[0].responses.logprobs
    np.testing.assert_allclose(first.gram, alone.gram, atol=1e-6 * np.abs(alone.gram).max())
    assert joint.gram.dtype == alone.gram.dtype == np.float64


@pytest.mark.parametrize("sketch", [None, 64])
def test_several_can_do_what_one_can(split, questions, sketch) -> None:
    """Another network, draws of its own, sampled coordinates, a sketch: of the first query bit for bit what it has
    alone but for the order of sums, and of all of them the same coordinates."""
    spec = ProbeSpec(rollouts=300, coordinates=40, sketch=sketch)
    options = {"max_tokens": 2, "seed": 1, "factors": shaken(split, 1), "stream": 2**63 + 5}
    joint, alone = (measure(split, asked, spec, **options) for asked in (questions, questions[:1]))
    first, one = joint.probes[0], alone.probes[0]
    assert first.responses.logprobs == one.responses.logprobs
    np.testing.assert_array_equal(first.responses.counts, one.responses.counts)
    np.testing.assert_array_equal(first.scores, one.scores)
    np.testing.assert_allclose(first.gram, one.gram, atol=1e-13 * np.abs(one.gram).max())
    assert [probe.meta.query for probe in joint.probes] == [0, 1, 2]
    for probe, question in zip(joint.probes, questions, strict=True):
        prompt = read_prompt(split, question.prompt)
        scores = atom_scores(split, prompt, options["factors"], probe.layout.atoms).numpy()
        assert probe.scores is not None and probe.share == one.share
        assert all((scores == column[:, None]).all(axis=0).any() for column in probe.scores.T)
        assert probe.meta.sketch == sketch and probe.meta.seconds == first.meta.seconds > 0


def test_every_query_tells_how_far_it_is(split, questions) -> None:
    told: list[tuple[str, int, int]] = []
    for asked in (questions[:1], questions):
        told.clear()
        measure(
            split, asked, ProbeSpec(rollouts=300), max_tokens=2, seed=0,
            progress=lambda *x: told.append(x),
        )  # fmt: skip
        assert [x for x in told if x[0] == "rollouts"] == [
            ("rollouts", 0, 300),
            ("rollouts", 256, 300),
            ("rollouts", 300, 300),
        ] * len(asked)
        whole = [x for x in told if x[0] == "scores" and x[1] == x[2]]
        assert len(whole) == len(asked)
        assert [x for x in told if x[0] == "probe"] == (
            [] if len(asked) == 1 else [("probe", q, 3) for q in (1, 2, 3)]
        )


def test_a_query_that_is_known_early_is_sampled_less(split, questions) -> None:
    """Each stops by itself, after whole batches of 256."""
    made = measure(split, questions, ProbeSpec(rollouts=768, precision=0.2), max_tokens=2, seed=0)
    asked = [probe.responses.rollouts for probe in made.probes]
    for q, probe in enumerate(made.probes):
        low, high = probe.p0_interval()
        assert asked[q] == 768 or (high - low) / 2 <= 0.2 * probe.p0
    assert min(asked) < 768 and set(asked) <= {256, 512, 768}


def test_blocks_between_queries_are_products_of_their_scores(split, questions, joint) -> None:
    scores = torch.cat([
        atom_scores(split, read_prompt(split, q.prompt), split.adapters.fresh(1), probe.layout.atoms)
        for q, probe in zip(questions, joint.probes, strict=True)
    ])  # fmt: skip
    np.testing.assert_allclose(joint.gram, gram(scores).numpy(), atol=1e-13 * float(gram(scores).max()))
    trees, kernel = joint.trees()
    np.testing.assert_allclose(kernel, kernel.T, atol=1e-12)
    first = len(trees[0].node)
    np.testing.assert_array_equal(kernel[:first, :first], joint.probes[0].tree().kernel)
    assert np.abs(kernel[:first, first:]).max() > 0.01 * np.abs(kernel[:first, :first]).max()


def test_pulling_one_query_moves_another_as_the_kernel_says(split, questions, joint) -> None:
    """One pull of the first query's answer with weight w: d p_held / d w of the network, by finite differences
    at fixed responses, against the tree kernel's; the trees hold every response that was sampled, and a rest."""
    trees, kernel = joint.trees()
    arms = forest(trees, kernel, training=1)
    with jax.enable_x64(True):
        answer = joint.probes[0].leaf_of((7, 12), 1.0)
        state = tree_kernel.init(arms)
        pull = tree_kernel.direction(
            arms, state, jnp.array([answer]), jnp.asarray(arms.span[[answer]] > 0, state.dtype)
        )
        step = 1e-6
        ahead, before = (float(tree_kernel.held_out(arms, state + s * pull)) for s in (step, -step))
        predicted = (ahead - before) / (2 * step)

    factors = split.adapters.fresh(1)
    leaves = split.adapters.trainable(factors)
    from llm_bridge.rollouts.rollouts import read_responses, score

    def logs(q: int, response: tuple[int, ...]) -> torch.Tensor:
        prompt, y = read_prompt(split, questions[q].prompt), torch.tensor([response])
        row = torch.zeros(1, dtype=torch.long)
        return score(split, prompt, factors, row, read_responses(split, prompt, y), y).sum()

    gradient = torch.autograd.grad(logs(0, (7, 12)), leaves)
    slopes = []
    for q, right in ((1, (2, 12)), (2, (8, 12))):
        value = logs(q, right)
        own = torch.autograd.grad(value, leaves)
        along = sum(float((a * b).sum()) for a, b in zip(gradient, own, strict=True))
        slopes.append(float(value.exp().detach()) * along)
    assert abs(np.mean(slopes)) > 1e-6
    assert predicted == pytest.approx(np.mean(slopes), rel=1e-3)


def test_a_bootstrap_draws_every_query_apart(joint) -> None:
    (first, kernel), (again, same) = joint.trees(3), joint.trees(3)
    np.testing.assert_array_equal(kernel, same)
    assert all(np.array_equal(a.probability, b.probability) for a, b in zip(first, again, strict=True))


def test_one_query_has_its_trees_own_kernel(joint) -> None:
    """Its own bootstrap, too: that of `Probe.bootstrap_weights(seed)`."""
    probe = joint.probes[0]
    alone = JointProbe((probe,), probe.gram)
    for seed in (None, 4):
        (tree,), kernel, (own,) = alone.trees_and_scores(seed)
        wanted, scores = probe.tree_and_scores(None if seed is None else probe.bootstrap_weights(seed))
        assert kernel is tree.kernel
        np.testing.assert_array_equal(kernel, wanted.kernel)
        np.testing.assert_array_equal(own, scores)


def test_edges_have_their_atoms_scores_tree_by_tree(joint) -> None:
    """Products of the edges' scores are the kernel between queries; within one, tails have a correction."""
    trees, kernel, maps = joint.trees_and_scores(2)
    assert joint.edge_scores(maps) is None
    values, vectors = np.linalg.eigh(joint.gram)  # of rounded scores: some are a little below 0
    low = vectors * np.sqrt(np.maximum(values, 0))
    ends = np.cumsum([0, *(len(probe.layout.atoms) for probe in joint.probes)])
    held = [
        replace(probe, scores=low[a:b], share=0.5)
        for probe, a, b in zip(joint.probes, ends, ends[1:], strict=False)
    ]
    scores = JointProbe(tuple(held), joint.gram).edge_scores(maps)
    assert scores is not None and scores.shape == (sum(len(tree.node) for tree in trees), len(joint.gram))
    query = np.repeat(np.arange(3), [len(tree.node) for tree in trees])
    between = query[:, None] != query[None, :]
    np.testing.assert_allclose(
        (scores @ scores.T)[between], kernel[between], atol=1e-5 * np.abs(kernel).max()
    )
    assert JointProbe(tuple(held), joint.gram).share == 0.5


def test_what_cannot_be_joined_is_refused(split, tiny, questions, joint) -> None:
    with pytest.raises(Refusal, match=r"gram has shape \(2, 2\), the probes have .* atoms"):
        JointProbe(joint.probes, np.eye(2))
    trees, kernel = joint.trees()
    for refused in (lambda: forest(trees[:1], kernel, training=1), lambda: sequences(trees[:1], kernel)):
        with pytest.raises(Refusal, match=r"kernel has shape .*, the trees have"):
            refused()
    hopeless = Question(questions[0].prompt, lambda t: 0.0, tiny.end_tokens)
    with pytest.raises(NoCorrectRollout, match="query 2 of 2: no correct rollout among 90"):
        measure(split, [questions[0], hopeless], ProbeSpec(rollouts=90), max_tokens=2, seed=0)
