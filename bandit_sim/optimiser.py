"""The optimiser specifications of `theory.rules`, in optax (it descends: feed it minus the direction)."""

from __future__ import annotations

import jax
import optax

from theory.rules.optimiser import SGD, Adam, Optimiser


def realise(spec: Optimiser, eta: float | jax.Array | None = None) -> optax.GradientTransformation:
    """The optax transformation of an optimiser specification, its step size replaced by `eta` where given.

    Errors: TypeError for an unknown one.
    """
    step = spec.eta if eta is None else eta
    match spec:
        case SGD():
            return optax.sgd(step)
        case Adam():
            return optax.adamw(
                step, b1=spec.beta1, b2=spec.beta2, eps=spec.eps, weight_decay=spec.weight_decay
            )
    raise TypeError(f"optimiser {spec!r} has no realisation in optax; add one in bandit_sim/optimiser.py")
