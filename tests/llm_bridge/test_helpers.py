"""Rollouts that only feed a baseline, and pay by chance: what is trained on is drawn as without them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from llm_bridge.rollouts import draws
from llm_bridge.rollouts.rollouts import score
from llm_bridge.train import Trainer
from tests.llm_bridge.test_train import question, shake, trainer, ups
from theory.pay import Clean, Format, Noisy, Overlong, Shaped, Term
from theory.refusal import Refusal
from theory.rules import SGD, Batch, Rule, preset
from theory.rules.signals import Greedy, GroupMeanStd, Raw, Signal

EXTRA = GroupMeanStd(ddof=1, eps=1e-6, extra=7)
GREEDY = Greedy()


FLIPPING = Shaped(
    terms=(
        Term(pays=Noisy(false_positive=0.3, false_negative=0.3)),
        Term(weight=0.1, pays=Overlong(limit=3, buffer=3)),
    )
)
"""Wrong three times in ten, and a little off for every token."""


def helped(split, tiny, signal: Signal = EXTRA, *, replicas: int = 4, pay=None, rollouts: int = 1) -> Trainer:
    rule = Rule(signal=signal, optimiser=SGD(eta=0.05), rollouts=rollouts)
    return Trainer(
        split, [question(tiny, *both) for both in (("3+4=", "7"), ("1+1=", "2"))], rule, replicas=replicas,
        max_tokens=3, seed=3, pay=pay,
    )  # fmt: skip


@pytest.mark.parametrize("signal", [EXTRA, GREEDY])
def test_what_is_trained_on_is_drawn_as_without_helpers(split, tiny, signal) -> None:
    plain = helped(split, tiny, Raw()).step()
    turn = helped(split, tiny, signal).step()
    assert turn.tokens == plain.tokens and len(turn.tokens) == 4 * 2
    np.testing.assert_array_equal(turn.rewards, plain.rewards)
    np.testing.assert_array_equal(turn.query, plain.query)
    np.testing.assert_array_equal(turn.replica, plain.replica)


def seen_batches(run: Trainer) -> list[Batch]:
    """The batches that a run makes from now on."""
    made: list[Batch] = []
    batch_of = run._batch
    run._batch = lambda *args: made.append(batch_of(*args)) or made[-1]  # type: ignore[method-assign,func-returns-value]
    return made


@pytest.mark.parametrize("signal", [EXTRA, GREEDY])
def test_a_round_with_helpers_is_the_gradient_step_of_its_trained_rollouts(split, tiny, signal) -> None:
    """theta' = theta + eta grad (1/B) sum_q A_q log pi(y_q | x_q); A from all rewards of the query, written out."""
    run = helped(split, tiny, signal)
    shake(run)
    start, made = ups(run), seen_batches(run)
    turn = run.step()
    paid = made[0].rewards.numpy().reshape(4, 2, -1)
    first, others = paid[:, :, 0], paid[:, :, 1:]
    np.testing.assert_array_equal(first, turn.rewards.reshape(4, 2))
    if signal is EXTRA:
        advantage = (first - paid.mean(axis=2)) / (paid.std(axis=2, ddof=1) + 1e-6)
    else:
        advantage = first - others[:, :, 0]
    assert np.abs(advantage).max() > 0, "no gradient, no test"
    for s in range(run.replicas):
        own = split.adapters.fresh(1)
        leaves = split.adapters.trainable(own)
        with torch.no_grad():
            for leaf, at in zip(leaves, start, strict=True):
                leaf.copy_(torch.from_numpy(at[s : s + 1]))
        total = torch.zeros((), dtype=torch.float64)
        for q in range(2):
            prompt, y = run.asked[q].prompt, torch.tensor([turn.tokens[2 * s + q]])
            with torch.no_grad():
                hidden, _ = split.trunk.run(y, past=prompt.past)
            logs = score(split, prompt, own, torch.zeros(1, dtype=torch.long), hidden[:, :-1], y)
            total = total + float(advantage[s, q]) / 2 * logs.sum()
        for got, leaf, grad in zip(ups(run), leaves, torch.autograd.grad(total, leaves), strict=True):
            np.testing.assert_allclose(got[s], (leaf + 0.05 * grad).detach().numpy()[0], atol=1e-12)


def test_the_greedy_rollout_takes_the_most_likely_token_each_time(split, tiny, monkeypatch) -> None:
    """Against the whole model asked token by token; and its log probability is that of the policy."""
    run = helped(split, tiny, GREEDY, replicas=1)
    made = seen_batches(run)
    rolled = []
    sample = draws.sample_each
    monkeypatch.setattr(draws, "sample_each", lambda *args: rolled.append(sample(*args)) or rolled[-1])
    run.step()
    for q, prompt in enumerate(("3+4=", "1+1=")):
        tokens = tiny.encode_prompt(prompt)
        response: list[int] = []
        logprob = 0.0
        while len(response) < 3 and not (response and response[-1] in tiny.end_tokens):
            with torch.no_grad():
                logs = tiny.model(tokens).logits[0, -1].log_softmax(-1)
            response.append(int(logs.argmax()))
            logprob += float(logs.max())
            tokens = torch.cat([tokens, torch.tensor([[response[-1]]])], dim=1)
        row = 2 * q + 1
        assert rolled[0].tokens[row, : len(response)].tolist() == response
        assert float(made[0].logprobs[0, row].sum()) == pytest.approx(logprob, abs=1e-9)


def test_pay_by_chance_is_each_rollouts_own(split, tiny) -> None:
    """Same seed, fewer replicas or no helpers: the same pay. In 6,000 draws a share of .3 is met within 5 errors."""
    many, few = helped(split, tiny, pay=FLIPPING), helped(split, tiny, pay=FLIPPING, replicas=2)
    np.testing.assert_array_equal(many.step().rewards[:4], few.step().rewards)
    run = Trainer(
        split, [question(tiny, "3+4=", "7")], preset("rloo", eta=1e-9, rollouts=20), replicas=6, max_tokens=3,
        pay=Noisy(false_positive=0.3, false_negative=0.7),  # by chance alone, whatever is said
    )  # fmt: skip
    paid = np.array([turn.rewards for turn in run.run(50)])
    assert abs(paid.mean() - 0.3) < 5 * np.sqrt(0.3 * 0.7 / paid.size)


def test_pay_is_of_the_verified_reward_and_the_length(split, tiny) -> None:
    """Against the turn of the reward itself, by hand; pay that means nothing on text is refused."""
    plain, same = helped(split, tiny).step(), helped(split, tiny, pay=Clean()).step()
    np.testing.assert_array_equal(plain.rewards, same.rewards)
    pay = Shaped(terms=(Term(pays=Clean()), Term(weight=0.5, pays=Overlong(limit=3, buffer=2))))
    lengths = np.array([len(tokens) for tokens in plain.tokens])
    got = helped(split, tiny, pay=pay).step().rewards
    np.testing.assert_array_equal(got, plain.rewards - 0.5 * np.clip((lengths - 3) / 2 + 1, 0, 1))
    with pytest.raises(Refusal, match="pay format: format draws by chance"):
        helped(split, tiny, pay=Format(wrong=0.5))


def test_held_out_rollouts_are_not_paid(split, tiny) -> None:
    run = Trainer(
        split, [question(tiny, "3+4=", "7")], preset("minimalist", eta=0.05), replicas=3, max_tokens=3,
        held_out=[question(tiny, "1+1=", "2")], pay=FLIPPING,
    )  # fmt: skip
    assert set(np.unique(run.evaluate(8))) <= {0.0, 1.0}


@pytest.mark.parametrize("signal", [EXTRA, GREEDY])
def test_helpers_and_pay_by_chance_resume_bit_for_bit(split, tiny, signal) -> None:
    straight = helped(split, tiny, signal, pay=FLIPPING, rollouts=2)
    turns = list(straight.run(6))
    stopped, again = (helped(split, tiny, signal, pay=FLIPPING, rollouts=2) for _ in range(2))
    list(stopped.run(3))
    again.load_state(stopped.state())
    rest = list(again.run(6))
    for a, b in zip(turns[3:], rest, strict=True):
        assert a.tokens == b.tokens
        np.testing.assert_array_equal(a.rewards, b.rewards)
    assert all(map(np.array_equal, ups(straight), ups(again)))


def test_a_record_without_helpers_is_not_retraced(split, tiny) -> None:
    with pytest.raises(Refusal, match="greedy draws rollouts that are not trained on, which a record"):
        trainer(split, tiny, Rule(signal=GREEDY, optimiser=SGD(eta=1))).retrace([(7, 12)] * 6, np.zeros(6))
