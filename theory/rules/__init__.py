"""Update rules: signal, objective, aggregation, KL and entropy -> one weight per sampled token."""

from theory.rules.aggregation import (
    Constant,
    MicroBatchTokenMean,
    SequenceMeanTokenMean,
    SequenceSum,
    TokenMean,
)
from theory.rules.batch import Batch, check_batch
from theory.rules.entropy import ExactEntropy, NoEntropy, SampledEntropy, entropy_gradient
from theory.rules.kl import K1, K2, K3, KAbs, NoKL
from theory.rules.objectives import CISPO, GMPO, GSPO, PolicyGradient, PPOClip, SequenceClip
from theory.rules.optimiser import SGD, Adam
from theory.rules.rule import PRESETS, Rule, preset
from theory.rules.schedule import ConstantRate, CosineDecay, LinearDecay
from theory.rules.signals import GroupMean, GroupMeanStd, LeaveOneOut, Raw

__all__ = [
    "CISPO",
    "GMPO",
    "GSPO",
    "K1",
    "K2",
    "K3",
    "PRESETS",
    "SGD",
    "Adam",
    "Batch",
    "Constant",
    "ConstantRate",
    "CosineDecay",
    "ExactEntropy",
    "GroupMean",
    "GroupMeanStd",
    "KAbs",
    "LeaveOneOut",
    "LinearDecay",
    "MicroBatchTokenMean",
    "NoEntropy",
    "NoKL",
    "PPOClip",
    "PolicyGradient",
    "Raw",
    "Rule",
    "SampledEntropy",
    "SequenceClip",
    "SequenceMeanTokenMean",
    "SequenceSum",
    "TokenMean",
    "check_batch",
    "entropy_gradient",
    "preset",
]
