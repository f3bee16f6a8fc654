"""Full parameters: the model's own gradient, one replica, resumed bit for bit."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch

from llm_bridge.network.plain import FullModel, PlainModel, open_model
from llm_bridge.network.specs import FullSpec
from llm_bridge.network.split import SplitModel
from llm_bridge.probe.measure import measure
from llm_bridge.probe.scores import atom_scores, displaced
from llm_bridge.probe.spec import ProbeSpec
from llm_bridge.probe.survey import draw_rollouts
from llm_bridge.rollouts.asked import Question
from llm_bridge.rollouts.rollouts import Prompt, read_prompt
from llm_bridge.train import Trainer
from theory.pay import Noisy
from theory.refusal import Refusal
from theory.rules import K2, SGD, Adam, Rule, preset
from theory.rules.signals import Greedy, GroupMeanStd
from theory.trees.prefix_tree import Atom

ATOMS = [Atom((7, 12), 0), Atom((1,), 1, (2, 12)), Atom((), 0, (1, 7))]


@pytest.fixture(scope="module")
def whole(tiny) -> SplitModel:
    return open_model(tiny.model, FullSpec())


@pytest.fixture(scope="module")
def asked(whole, tiny) -> Prompt:
    return read_prompt(whole, tiny.encode_prompt("3+4="))


def trainer(split: SplitModel, tiny, rule: Rule, **options) -> Trainer:
    question = Question(
        tiny.encode_prompt("3+4="), lambda t: float(tiny.decode(list(t)) == "7"), tiny.end_tokens
    )
    return Trainer(split, [question], rule, replicas=1, max_tokens=3, seed=3, **options)


def log_probability(model, prompt: torch.Tensor, atom: Atom) -> torch.Tensor:
    """The atom's log probability by the model's own forward pass."""
    whole = torch.cat([prompt[0], torch.tensor(atom.tokens, dtype=torch.long)])[None]
    logs = model(input_ids=whole, use_cache=False).logits[0].log_softmax(-1)
    first = prompt.shape[1] - 1
    if atom.complement is not None:
        rest = [v for v in range(logs.shape[1]) if v not in atom.complement]
        return logs[first + atom.start, rest].logsumexp(0)
    return sum(logs[first + t, atom.tokens[t]] for t in range(atom.start, len(atom.tokens)))


def test_scores_are_the_models_own_gradients(whole, asked, tiny) -> None:
    """Autograd on a copy of the model, which knows of no slots and no trunk."""
    assert isinstance(whole, FullModel)
    model = copy.deepcopy(tiny.model).requires_grad_()
    names = [name for name, _ in model.named_parameters()]
    assert list(whole.adapters.fresh(1)) == names
    got = atom_scores(whole, asked, whole.adapters.fresh(1), ATOMS)
    for row, atom in zip(got, ATOMS, strict=True):
        grads = torch.autograd.grad(log_probability(model, asked.tokens, atom), list(model.parameters()))
        torch.testing.assert_close(row, torch.cat([g.reshape(-1) for g in grads]), rtol=1e-9, atol=1e-11)


def test_plain_path_gives_the_same_scores_and_rollouts(whole, asked, tiny) -> None:
    plain = PlainModel(copy.deepcopy(tiny.model), FullSpec())
    prompt = read_prompt(plain, asked.tokens)
    ours, theirs = (
        atom_scores(split, read, split.adapters.fresh(1), ATOMS)
        for split, read in ((whole, asked), (plain, prompt))
    )
    torch.testing.assert_close(ours, theirs, rtol=1e-9, atol=1e-11)
    a, b = (
        draw_rollouts(split, read, 32, 3, tiny.end_tokens, seed=1, batch=32)[0]
        for split, read in ((whole, asked), (plain, prompt))
    )
    assert (a.tokens == b.tokens).all()


def test_the_base_model_is_as_it_was(whole, asked, tiny) -> None:
    before = [p.clone() for p in tiny.model.parameters()]
    run = trainer(whole, tiny, preset("rloo", eta=0.05, rollouts=8))
    list(run.run(3))
    assert all(
        torch.equal(p, q) and not p.requires_grad
        for p, q in zip(tiny.model.parameters(), before, strict=True)
    )
    assert any((p[0] != q).any() for p, q in zip(run.parameters, before, strict=True))


def test_one_round_is_the_gradient_step_of_the_rule(whole, asked, tiny) -> None:
    """theta' = theta + eta grad mean_i A_i log pi(y_i) on every parameter, by autograd of the plain model."""
    run = trainer(whole, tiny, preset("rloo", eta=0.05, rollouts=8))
    turn = run.step()
    model = copy.deepcopy(tiny.model).requires_grad_()
    paid = turn.rewards
    advantage = paid - (paid.sum() - paid) / 7
    assert advantage.any(), "no signal, no test"
    total = sum(
        float(w) / 8 * log_probability(model, asked.tokens, Atom(y, 0))
        for w, y in zip(advantage, turn.tokens, strict=True)
    )
    grads = torch.autograd.grad(total, list(model.parameters()))  # pyright: ignore[reportArgumentType]
    for got, leaf, grad in zip(run.parameters, model.parameters(), grads, strict=True):
        torch.testing.assert_close(got[0].detach(), leaf.detach() + 0.05 * grad, rtol=1e-9, atol=1e-11)


ASKED = (("3+4=", "7"), ("1+1=", "2"), ("2+6=", "8"))


def of_several(split: SplitModel, tiny, rule: Rule, **options) -> Trainer:
    """Three queries, two of them a round, and one held out."""
    asked = [
        Question(
            tiny.encode_prompt(text),
            lambda t, right=right: float(tiny.decode(list(t)) == right),
            tiny.end_tokens,
        )
        for text, right in (*ASKED, ("7+6=", "13"))
    ]
    return Trainer(
        split, asked[:3], rule, replicas=1, max_tokens=3, batch=2, held_out=asked[3:], seed=3, **options
    )


@pytest.mark.parametrize("chunk", [1, 16])
def test_a_round_of_several_queries_is_the_models_own_gradient_step(whole, tiny, chunk) -> None:
    """Two rounds, by autograd on a copy: each of two of the three queries, leave-one-out within each query; the
    prompts are read anew when the parameters have moved."""
    rule = preset("rloo", eta=0.05, rollouts=8)
    # Paid by chance: some of these queries are nearly always right, and would have no gradient.
    chance = Noisy(false_positive=0.5, false_negative=0.5)
    run = of_several(whole, tiny, rule, chunk=chunk, pay=chance)
    model = copy.deepcopy(tiny.model).requires_grad_()
    prompts = [tiny.encode_prompt(text) for text, _ in ASKED]
    seen = set()
    for _ in range(2):
        turn = run.step()
        assert len(set(turn.query)) == 2 and len(turn.tokens) == 16
        seen |= set(turn.query)
        paid = turn.rewards.reshape(2, 8)
        advantage = ((paid - paid.mean(axis=1, keepdims=True)) * 8 / 7).ravel()
        assert np.abs(advantage).max() > 0, "no gradient, no test"
        sampled = [
            float(log_probability(model, prompts[q], Atom(y, 0)).detach())
            for q, y in zip(turn.query, turn.tokens, strict=True)
        ]
        np.testing.assert_allclose(turn.logprob, sampled, atol=1e-9)
        total = sum(
            float(a) / 16 * log_probability(model, prompts[q], Atom(y, 0))
            for a, q, y in zip(advantage, turn.query, turn.tokens, strict=True)
            if a
        )
        grads = torch.autograd.grad(total, list(model.parameters()))  # pyright: ignore[reportArgumentType]
        with torch.no_grad():
            for got, leaf, grad in zip(run.parameters, model.parameters(), grads, strict=True):
                leaf += 0.05 * grad
                torch.testing.assert_close(got[0].detach(), leaf.detach(), rtol=1e-9, atol=1e-11)
    assert len(seen) > 2, "another pair in the second round"


def test_held_out_queries_see_the_parameters_as_they_are(whole, tiny) -> None:
    """Rollouts of the held-out query before and after: log probabilities of the model's own, moved copy."""
    run = of_several(whole, tiny, preset("rloo", eta=0.05, rollouts=8))
    model = copy.deepcopy(tiny.model)
    for _ in range(3):
        before = [x.detach().clone() for x in run.parameters]
        assert run.evaluate(40).shape == (1, 1, 40)
        rolled = run.draws.rollouts(run.factors, run.round, np.full(6, 3), np.arange(6))
        with torch.no_grad():
            for leaf, own in zip(model.parameters(), run.parameters, strict=True):
                leaf.copy_(own[0])
        for row, logs, length in zip(rolled.tokens, rolled.logprobs, rolled.lengths, strict=True):
            y = tuple(int(x) for x in row[:length])
            exact = float(log_probability(model, tiny.encode_prompt("7+6="), Atom(y, 0)).detach())
            assert float(logs.sum()) == pytest.approx(exact, abs=1e-9)
        assert all(torch.equal(a, b) for a, b in zip(before, run.parameters, strict=True))
        run.step()


@pytest.mark.parametrize("signal", [GroupMeanStd(ddof=1, eps=1e-6, extra=7), Greedy()])
@pytest.mark.parametrize("make", [trainer, of_several])
def test_helper_rollouts_feed_the_baseline_alone(whole, tiny, make, signal) -> None:
    """Of one query and of several: what is trained on is drawn as without them, and a stopped run goes on bit for
    bit."""
    rule = Rule(signal=signal, optimiser=SGD(eta=0.05), rollouts=2)
    plain, helped, stopped, resumed = (
        make(whole, tiny, r) for r in (Rule(optimiser=SGD(eta=0.05), rollouts=2), rule, rule, rule)
    )
    first = helped.step()
    assert first.tokens == plain.step().tokens
    assert len(first.tokens) == 2 * helped.batch and helped.rows_each > len(first.tokens)
    list(helped.run(4)), list(stopped.run(2))
    resumed.load_state(stopped.state())
    list(resumed.run(4))
    moved = [not torch.equal(a, b) for a, b in zip(helped.parameters, whole_parameters(whole), strict=True)]
    assert any(moved), "something was learned"
    assert all(torch.equal(a, b) for a, b in zip(helped.parameters, resumed.parameters, strict=True))


def whole_parameters(split: SplitModel) -> list[torch.Tensor]:
    return split.adapters.trainable(split.adapters.fresh(1))


def test_recomputing_changes_no_number(whole, tiny) -> None:
    rule = preset("rloo", eta=0.05, rollouts=8)
    once, twice = (trainer(whole, tiny, rule, recompute=again) for again in (False, True))
    list(once.run(2)), list(twice.run(2))
    for a, b in zip(once.parameters, twice.parameters, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-14)


def test_a_stopped_run_goes_on_bit_for_bit(whole, tiny) -> None:
    """Adam's moments and a moving reference included."""
    rule = preset("trl-grpo", eta=0.001, rollouts=8).model_copy(
        update={"optimiser": Adam(eta=0.001), "kl": K2(beta=0.1, refresh=2)}
    )
    through, stopped = trainer(whole, tiny, rule), trainer(whole, tiny, rule)
    list(through.run(5))
    list(stopped.run(3))
    resumed = trainer(whole, tiny, rule)
    resumed.load_state(stopped.state())
    list(resumed.run(5))
    states = through.state(), resumed.state()
    assert states[0].keys() == states[1].keys()
    assert any(name.startswith("reference.whole.") for name in states[0])
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])


def test_displaced_parameters_are_the_base_plus_the_sum_of_the_scores(whole, asked) -> None:
    shares = torch.tensor([[0.1, -0.2, 0.3]], dtype=torch.float64)
    moved = displaced(whole, [(asked, ATOMS, shares.numpy())])
    base = whole.adapters.fresh(1)
    change = torch.cat([
        (moved[name][0] - base[name][0]).reshape(1, -1) for name in base
    ], dim=1)  # fmt: skip
    scores = atom_scores(whole, asked, base, ATOMS)
    torch.testing.assert_close(change.detach(), shares @ scores, rtol=1e-7, atol=1e-10)


def test_more_replicas_are_refused(whole, tiny) -> None:
    with pytest.raises(Refusal, match=r"replicas = 2 with full parameters.*--replicas 1"):
        whole.adapters.fresh(2)


def test_too_many_parameters_for_whole_scores_are_refused_before_a_rollout(
    whole, asked, tiny, monkeypatch
) -> None:
    monkeypatch.setattr("llm_bridge.probe.measure.LARGEST", 1000)
    monkeypatch.setattr("llm_bridge.probe.measure.survey", None)
    with pytest.raises(Refusal, match=r"parameters are trained.*give a sketch"):
        measure(
            whole, [Question(asked.tokens, lambda t: 1.0, tiny.end_tokens)], ProbeSpec(), max_tokens=3, seed=0
        )
