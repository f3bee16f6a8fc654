"""Optimiser specifications; optax and torch realise them, on either side of the bridge."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from theory.rules.spec import Spec

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Decay = Annotated[float, Field(ge=0, lt=1, allow_inf_nan=False)]


class SGD(Spec):
    """theta <- theta + eta * update.

    Arguments:
        eta: > 0, step size.
    """

    kind: Literal["sgd"] = "sgd"
    eta: Positive


class Adam(Spec):
    """theta <- theta + eta * (m_hat / (sqrt(v_hat) + eps) - weight_decay * theta), bias-corrected moments.

    Arguments:
        eta: > 0, step size.
        beta1, beta2: in [0, 1), decay of the first and second moments.
        eps: > 0, added to the root of the second moment.
        weight_decay: >= 0, decoupled (AdamW), multiplied by eta.
    Source: arXiv 1412.6980, 1711.05101. Valid when: note that a constant factor on all rewards is invisible
    to it, up to eps.
    """

    kind: Literal["adam"] = "adam"
    eta: Positive
    beta1: Decay = 0.9
    beta2: Decay = 0.999
    eps: Positive = 1e-8
    weight_decay: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0


Optimiser = Annotated[SGD | Adam, Field(discriminator="kind")]
