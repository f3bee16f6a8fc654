"""The optimiser specifications of `theory.rules`, in optax (it descends: feed it minus the direction)."""

from __future__ import annotations

import jax
import optax

from theory.rules.optimiser import SGD, Adam, Optimiser


def realise(spec: Optimiser, eta: float | jax.Array | None = None) -> optax.GradientTransformation:
    """The optax transformation of an optimiser specification, its step size replaced by `eta` where given.

    Errors: TypeError for an unknown one.
    Valid when: the tree it is given is one replica's parameters, since `clip_norm` is of their joint norm.
    """
    step = spec.eta if eta is None else eta
    rate = step
    if spec.schedule.changes:
        rate = lambda count: step * spec.schedule.factor(count)  # noqa: E731 (optax takes either)
    match spec:
        case SGD():
            steps = optax.sgd(rate, momentum=spec.momentum or None, nesterov=spec.nesterov)
        case Adam():
            steps = optax.adamw(
                rate, b1=spec.beta1, b2=spec.beta2, eps=spec.eps, weight_decay=spec.weight_decay
            )
        case _:
            raise TypeError(
                f"optimiser {spec!r} has no realisation in optax; add one in bandit_sim/optimiser.py"
            )
    return steps if spec.clip_norm is None else optax.chain(optax.clip_by_global_norm(spec.clip_norm), steps)
