"""Training: each replica alone is what it is in the batch; a stopped run goes on bit for bit."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from llm_bridge.models.language_model import LanguageModel
from llm_bridge.network.specs import AdapterSpec
from llm_bridge.network.split import SplitModel
from llm_bridge.rollouts.asked import Question
from llm_bridge.rollouts.rollouts import response_logits, score
from llm_bridge.train import Round, Trainer
from tests.theory.rules import table
from theory.refusal import Refusal
from theory.rules import SGD, Adam, Batch, CosineDecay, ExactEntropy, LinearDecay, Rule, preset


def trainer(
    split: SplitModel,
    tiny: LanguageModel,
    rule: Rule | None = None,
    *,
    replicas: int = 6,
    chunk: int = 16,
    paid=None,
) -> Trainer:
    reward = paid or (lambda t: float(tiny.decode(list(t)) == "7"))
    return Trainer(
        split,
        [Question(tiny.encode_prompt("3+4="), reward, tiny.end_tokens)],
        rule or preset("minimalist", eta=0.05),
        replicas=replicas,
        max_tokens=3,
        seed=3,
        chunk=chunk,
    )


def ups(run: Trainer) -> list[np.ndarray]:
    return [up.detach().numpy().copy() for _, up in run.factors.values()]


@pytest.mark.parametrize("rule", [preset("minimalist", eta=0.05), preset("rloo", eta=0.05, rollouts=4)])
def test_one_round_is_the_gradient_step_of_the_rule(split, tiny, rule) -> None:
    """theta' = theta + eta grad mean_i A_i log pi(y_i), by autograd of that mean, for each replica."""
    run = trainer(split, tiny, rule)
    turn = run.step()
    n = rule.rollouts
    rewards = turn.rewards.reshape(-1, n)
    advantage = rewards if n == 1 else (rewards - (rewards.sum(1, keepdims=True) - rewards) / (n - 1))
    for s in range(run.replicas):
        own = split.adapters.fresh(1)
        leaves = split.adapters.trainable(own)
        total = torch.zeros((), dtype=torch.float64)
        for i in range(n):
            y = torch.tensor([turn.tokens[s * n + i]])
            with torch.no_grad():
                hidden, _ = split.trunk.run(y, past=run.asked[0].prompt.past)
            logs = score(split, run.asked[0].prompt, own, torch.zeros(1, dtype=torch.long), hidden[:, :-1], y)
            total = total + float(advantage[s, i]) / n * logs.sum()
        grads = (
            torch.autograd.grad(total, leaves)
            if total.requires_grad
            else [torch.zeros_like(x) for x in leaves]
        )
        for got, leaf, grad in zip(ups(run), leaves, grads, strict=True):
            np.testing.assert_allclose(got[s], (leaf + 0.05 * grad).detach().numpy()[0], atol=1e-12)


def shake(run: Trainer, size: float = 0.3) -> None:
    """Move every replica away from the base model, each elsewhere."""
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for parameter in run.parameters:
            parameter += size * torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    run._moved(torch.arange(run.replicas))


def printed_round(run: Trainer, start: list[np.ndarray], turn: Round, row: table.Row, s: int) -> list[Tensor]:
    """Replica s after the round by SGD on the printed loss of `row`, autograd through the whole model."""
    n, rule = run.rule.rollouts, run.rule
    responses = [torch.tensor([y]) for y in turn.tokens[s * n : s * n + n]]
    longest = max(y.shape[1] for y in responses)

    def logs_of(factors) -> tuple[Tensor, list[Tensor]]:
        picked, entropies = [], []
        for y in responses:
            with torch.no_grad():
                hidden, _ = run.split.trunk.run(y, past=run.asked[0].prompt.past)
            row_of = torch.zeros(1, dtype=torch.long)
            logits = response_logits(run.split, run.asked[0].prompt, factors, row_of, hidden[:, :-1], y)
            every = logits.log_softmax(dim=-1)
            own = every.gather(1, y.T)[:, 0]
            picked.append(torch.nn.functional.pad(own, (0, longest - len(own))))
            entropies.append(-(every.exp() * every).sum(1))
        return torch.stack(picked), entropies

    own = run.split.adapters.fresh(1)
    leaves = run.split.adapters.trainable(own)
    with torch.no_grad():
        reference = logs_of(None)[0]
        for leaf, at in zip(leaves, start, strict=True):
            leaf.copy_(torch.from_numpy(at[s : s + 1]))
        old = logs_of(own)[0]
    mask = np.array([[float(t < y.shape[1]) for t in range(longest)] for y in responses])
    for _ in range(rule.epochs):
        logs, entropies = logs_of(own)
        numbers = (logs.detach().numpy(), old.numpy(), reference.numpy())
        batch = Batch(*numbers, turn.rewards[s * n : s * n + n], np.zeros(n, dtype=int), mask)
        loss = row.loss(table.TORCH, logs, batch)
        if isinstance(rule.entropy, ExactEntropy):
            loss = loss - rule.entropy.beta * torch.cat(entropies).mean()
        for leaf, grad in zip(leaves, torch.autograd.grad(loss, leaves), strict=True):
            leaf.data -= rule.optimiser.eta * grad
    return [leaf.detach() for leaf in leaves]


@pytest.mark.parametrize("epochs", [1, 3])
@pytest.mark.parametrize(
    ("objective", "aggregation", "kl", "entropy"),
    [(0, 0, k, 0) for k in range(1, len(table.KLS))]
    + [(o, 1, 0, 0) for o in range(len(table.OBJECTIVES))]
    + [(1, 2, 3, 1), (1, 4, 0, 2), (1, 3, 1, 3), (0, 0, 0, 3)],
)
def test_a_round_of_any_objective_kl_bonus_and_epochs_descends_its_printed_loss(
    split, tiny, objective, aggregation, kl, entropy, epochs
) -> None:
    row = table.build(
        table.LEAVE_ONE_OUT,
        table.OBJECTIVES[objective],
        table.AGGREGATIONS[aggregation],
        table.KLS[kl],
        table.ENTROPIES[entropy],
    )
    rule = Rule(**{**dict(row.rule), "optimiser": SGD(eta=2.0), "rollouts": 3, "epochs": epochs})
    run = trainer(split, tiny, rule, replicas=2)
    shake(run)
    start = ups(run)
    turn = run.step()
    for s in range(run.replicas):
        expected = printed_round(run, start, turn, row, s)
        for got, want in zip(ups(run), expected, strict=True):
            np.testing.assert_allclose(got[s], want.numpy()[0], atol=1e-10)
    assert any(np.any(a != b) for a, b in zip(ups(run), start, strict=True))


def test_scores_of_the_same_parameters_are_those_of_sampling(split, tiny) -> None:
    """So that the ratio is 1 up to rounding before anything moved, whatever the padding and the chunk."""
    run = trainer(split, tiny, preset("rloo", eta=0.05, rollouts=4), chunk=5)
    shake(run)
    seen = []
    run._update = lambda rolled, query, weights, bonus: seen.append((rolled, query))  # type: ignore[method-assign]
    run.step()
    ((rolled, query),) = seen
    mask = rolled.mask.reshape(6, 4, -1) > 0
    again = run._scores(rolled, query, run.factors).numpy()
    np.testing.assert_allclose(again[mask], rolled.logprobs.reshape(6, 4, -1)[mask], atol=1e-11)


def test_the_reference_moves_every_so_many_rounds_and_else_stays_the_base_model(split, tiny) -> None:
    kl = {"kind": "k2", "beta": 0.3, "refresh": 2}
    moving = trainer(split, tiny, Rule(optimiser=SGD(eta=0.5), kl=kl))
    fixed = trainer(split, tiny, Rule(optimiser=SGD(eta=0.5), kl={**kl, "refresh": None}))
    history = [ups(moving)]
    for _ in range(5):
        moving.step(), fixed.step()
        history.append(ups(moving))
        if moving.round == 2:  # no refresh before round 2 (rounds from 0): the two runs are one
            assert all(map(np.array_equal, history[2], ups(fixed)))
    assert fixed.reference is None and moving.reference is not None
    kept = [up.numpy() for _, up in moving.reference.values()]
    assert all(map(np.array_equal, kept, history[4]))  # before round 4, that is after four updates
    assert not all(map(np.array_equal, ups(moving), ups(fixed)))


def test_the_reference_is_scored_only_where_a_weight_reads_it(split, tiny) -> None:
    for kl, calls in (({"kind": "none"}, 0), ({"kind": "k1", "beta": 1}, 0), ({"kind": "k3", "beta": 1}, 1)):
        run, seen = trainer(split, tiny, Rule(optimiser=SGD(eta=0.1), kl=kl)), []
        scores = run._scores
        run._scores = lambda *a, scores=scores, seen=seen: seen.append(1) or scores(*a)  # type: ignore
        run.step()
        assert len(seen) == calls


FULL = {
    "kl": {"kind": "k2", "beta": 0.2, "refresh": 2},
    "entropy": {"kind": "exact", "beta": 0.01},
    "objective": {"kind": "ppo_clip"},
    "rollouts": 2,
    "epochs": 2,
}


@pytest.mark.parametrize(
    "optimiser",
    [
        SGD(eta=0.05, momentum=0.9, schedule=LinearDecay(steps=16, warmup=3), clip_norm=0.5),
        Adam(eta=0.01, schedule=CosineDecay(steps=12), clip_norm=0.5, weight_decay=0.1),
    ],
    ids=lambda spec: spec.kind,
)
def test_a_full_rule_resumes_bit_for_bit_and_keeps_replicas_apart(split, tiny, optimiser) -> None:
    rule = Rule(optimiser=optimiser, **FULL)
    straight, few = trainer(split, tiny, rule), trainer(split, tiny, rule, replicas=2, chunk=3)
    list(straight.run(6)), list(few.run(6))
    for a, b in zip(ups(straight), ups(few), strict=True):
        np.testing.assert_allclose(a[:2], b, atol=1e-11)
    for stop in (1, 3):  # before and after the first refresh
        stopped, again = trainer(split, tiny, rule), trainer(split, tiny, rule)
        list(stopped.run(stop))
        again.load_state(stopped.state())
        list(again.run(6))
        for a, b in zip(ups(straight), ups(again), strict=True):
            np.testing.assert_array_equal(a, b)


def test_a_schedule_counts_epochs_and_rounds_without_success(split, tiny) -> None:
    rule = Rule(optimiser=SGD(eta=0.5, schedule=LinearDecay(steps=6)), epochs=3)
    run = trainer(split, tiny, rule, paid=lambda t: 0.0)
    list(run.run(2))
    assert run.ascent.steps == 6
    run.reward_of = lambda t: 1.0
    before = ups(run)
    run.step()
    assert all(map(np.array_equal, before, ups(run)))  # the schedule has ended


def test_replicas_do_not_touch_one_another(split, tiny) -> None:
    many, few = trainer(split, tiny, replicas=6), trainer(split, tiny, replicas=2)
    for _ in range(5):
        many.step(), few.step()
    for a, b in zip(ups(many), ups(few), strict=True):
        np.testing.assert_allclose(a[:2], b, atol=1e-12)


def test_gradient_does_not_depend_on_the_chunk(split, tiny) -> None:
    whole, pieces = trainer(split, tiny, chunk=16), trainer(split, tiny, chunk=1)
    for _ in range(4):
        whole.step(), pieces.step()
    for a, b in zip(ups(whole), ups(pieces), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12)


@pytest.mark.parametrize(
    "rule",
    [
        preset("minimalist", eta=0.05),
        Rule(optimiser=Adam(eta=0.01)),
        preset("prime-rl-rae", eta=0.05),
        preset("papers-2601.22532-replay", eta=0.01, rollouts=2),
    ],
    ids=["sgd", "adam", "moving average", "reward window"],
)
def test_resumed_run_is_the_uninterrupted_one_bit_for_bit(split, tiny, rule) -> None:
    straight = trainer(split, tiny, rule)
    turns = list(straight.run(8))
    stopped = trainer(split, tiny, rule)
    list(stopped.run(3))
    again = trainer(split, tiny, rule)
    again.load_state(stopped.state())
    rest = list(again.run(8))
    assert [t.tokens for t in turns[3:]] == [t.tokens for t in rest]
    for a, b in zip(ups(straight), ups(again), strict=True):
        np.testing.assert_array_equal(a, b)


def test_raw_reward_without_success_moves_nothing(split, tiny) -> None:
    run = trainer(split, tiny, paid=lambda t: 0.0)
    list(run.run(3))
    assert all(np.all(up == 0) for up in ups(run))


def test_nan_reward_names_replica_and_round(split, tiny) -> None:
    run = trainer(split, tiny, paid=lambda t: float("nan"))
    with pytest.raises(Refusal, match="replica 0 in round 1"):
        run.step()


def test_learning_raises_success(split, tiny) -> None:
    """p0 is about a third; after 60 rounds at eta .05 a mean over 64 replicas that does not rise by 4 standard
    errors (.06 each) would be a bug, not chance."""
    run = trainer(split, tiny, replicas=64)
    paid = np.stack([t.rewards for t in run.run(60)])
    assert paid[-5:].mean() > paid[:5].mean() + 0.15


def test_recomputed_blocks_give_the_same_gradient(tiny, monkeypatch) -> None:
    """Both blocks of the model adapted; a block's forward runs twice where it is recomputed."""
    counts, steps = [], []
    for recompute in (False, True):
        own = SplitModel(tiny.model, AdapterSpec(rank=2, blocks=2))
        own.head.continues = (
            False  # else a prompt and its responses are two passes where nothing is recomputed
        )
        ask = question(tiny, "3+4=", "7")
        run = Trainer(
            own, [ask], preset("rloo", eta=0.05, rollouts=4), replicas=3, max_tokens=3, recompute=recompute
        )
        calls = []
        for block in own.head.blocks:
            block.mlp.register_forward_pre_hook(lambda *_, calls=calls: calls.append(torch.is_grad_enabled()))
        list(run.run(2))
        counts.append(sum(calls))
        steps.append(ups(run))
        assert not any(block.training for block in own.head.blocks)
    assert counts[1] == 2 * counts[0] > 0
    for plain, again in zip(*steps, strict=True):
        np.testing.assert_allclose(plain, again, rtol=1e-12, atol=1e-14)


PROMPTS = ("3+4=", "1+1=", "2+6=", "5+2=")
RIGHT = ("7", "2", "8", "7")


def question(tiny: LanguageModel, prompt: str, right: str) -> Question:
    return Question(
        tiny.encode_prompt(prompt), lambda t: float(tiny.decode(list(t)) == right), tiny.end_tokens
    )


def several(split, tiny, rule: Rule, *, queries: int = 3, held_out: int = 1, replicas: int = 4, **settings):
    asked = [question(tiny, *both) for both in zip(PROMPTS, RIGHT, strict=True)]
    return Trainer(
        split, asked[:queries], rule, held_out=asked[queries : queries + held_out],
        replicas=replicas, max_tokens=3, seed=3, **settings,
    )  # fmt: skip


def test_the_gradient_of_a_batch_is_that_of_its_printed_loss(split, tiny) -> None:
    """theta' = theta + eta grad (1/Bn) sum_q sum_i (r_qi - mean_q) log pi(y_qi | x_q), each query its own group."""
    run = several(split, tiny, preset("group-mean", eta=0.05, rollouts=3))
    shake(run)
    start = ups(run)
    turn = run.step()
    rewards = turn.rewards.reshape(run.replicas, 3, 3)
    np.testing.assert_array_equal(turn.query.reshape(run.replicas, 3, 3)[:, :, 0], [[0, 1, 2]] * run.replicas)
    for s in range(run.replicas):
        own = split.adapters.fresh(1)
        leaves = split.adapters.trainable(own)
        with torch.no_grad():
            for leaf, at in zip(leaves, start, strict=True):
                leaf.copy_(torch.from_numpy(at[s : s + 1]))
        total = torch.zeros((), dtype=torch.float64)
        for q in range(3):
            for i in range(3):
                y = torch.tensor([turn.tokens[s * 9 + q * 3 + i]])
                past = run.asked[q].prompt.past
                with torch.no_grad():
                    hidden, _ = split.trunk.run(y, past=past)
                row = torch.zeros(1, dtype=torch.long)
                logs = score(split, run.asked[q].prompt, own, row, hidden[:, :-1], y)
                total = total + (rewards[s, q, i] - rewards[s, q].mean()) / 9 * logs.sum()
        for got, leaf, grad in zip(ups(run), leaves, torch.autograd.grad(total, leaves), strict=True):
            np.testing.assert_allclose(got[s], (leaf + 0.05 * grad).detach().numpy()[0], atol=1e-11)
    assert rewards.std(axis=2).any(), "no gradient, no test"


def test_one_query_among_several_is_the_run_of_that_query_alone(split, tiny) -> None:
    """Query 0 draws with the same numbers whether others are asked or not."""
    rule = preset("minimalist", eta=0.05)
    alone = several(split, tiny, rule, queries=1, held_out=0).step()
    among = several(split, tiny, rule, queries=3).step()
    assert [t for t, q in zip(among.tokens, among.query, strict=True) if q == 0] == alone.tokens


def test_a_batch_is_drawn_without_replacement_and_by_each_replica_for_itself(split, tiny) -> None:
    run = several(split, tiny, preset("minimalist", eta=0.0001), batch=2, replicas=6)
    picked = np.array([turn.query.reshape(6, 2) for turn in run.run(40)])  # (T, S, B)
    assert (picked[:, :, 0] < picked[:, :, 1]).all()
    assert len({tuple(s) for s in picked.reshape(40, 12).T[::2].tolist()}) > 1
    # 240 batches leave out one query of three each: chi-square with two degrees of freedom below 13.8 (1 in 1,000).
    left = np.bincount(3 - picked.sum(axis=2).ravel(), minlength=3)
    assert ((left - 80) ** 2 / 80).sum() < 13.8


def test_held_out_queries_are_sampled_and_never_trained_on(split, tiny) -> None:
    rule = preset("minimalist", eta=0.05)
    looked, blind = several(split, tiny, rule, batch=1), several(split, tiny, rule, batch=1)
    for _ in range(4):
        paid = looked.evaluate(5)
        assert paid.shape == (4, 1, 5) and set(np.unique(paid)) <= {0.0, 1.0}
        looked.step(), blind.step()
    assert all(map(np.array_equal, ups(looked), ups(blind)))
    with pytest.raises(Refusal, match="no held-out query to evaluate"):
        several(split, tiny, rule, held_out=0).evaluate(1)


@pytest.mark.parametrize(
    "rule", [preset("prime-rl-rae", eta=0.05), preset("group-mean", eta=0.05, rollouts=2)]
)
def test_a_run_of_several_queries_resumes_bit_for_bit(split, tiny, rule) -> None:
    """prime-rl-rae keeps a moving average for each query."""
    whole = several(split, tiny, rule, batch=2)
    turns = list(whole.run(6))
    first = several(split, tiny, rule, batch=2)
    list(first.run(3))
    second = several(split, tiny, rule, batch=2)
    second.load_state(first.state())
    again = list(second.run(6))
    assert [t.tokens for t in turns[3:]] == [t.tokens for t in again]
    assert all(map(np.array_equal, ups(whole), ups(second)))


def test_a_batch_that_the_queries_cannot_fill_is_refused(split, tiny) -> None:
    with pytest.raises(Refusal, match="batch = 4 of 3 training queries; give 1 to all of them"):
        several(split, tiny, preset("minimalist"), batch=4)
    run = several(split, tiny, preset("minimalist"), batch=1)
    with pytest.raises(Refusal, match="do not say which were asked; give the query of each"):
        run.retrace([(7, 12)] * 4, np.zeros(4))


def test_of_a_batch_that_is_not_all_a_record_with_its_queries_is_retraced(split, tiny) -> None:
    run, again = (several(split, tiny, preset("minimalist", eta=0.05), batch=2) for _ in range(2))
    for turn in run.run(6):
        again.retrace(turn.tokens, turn.rewards, turn.query)
    moved = [a - b for a, b in zip(ups(run), ups(several(split, tiny, preset("minimalist"))), strict=True)]
    assert max(abs(x).max() for x in moved) > 1e-3
    for a, b in zip(ups(run), ups(again), strict=True):
        np.testing.assert_allclose(a, b, atol=1e-12)
