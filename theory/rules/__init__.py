"""Update rules: signal, objective, aggregation and KL -> one weight per sampled token."""

from theory.rules.aggregation import Constant, SequenceMeanTokenMean, SequenceSum, TokenMean
from theory.rules.batch import Batch, check_batch
from theory.rules.kl import K3, NoKL
from theory.rules.objectives import PolicyGradient, PPOClip
from theory.rules.optimiser import SGD, Adam
from theory.rules.rule import PRESETS, Rule, preset
from theory.rules.signals import GroupMean, GroupMeanStd, LeaveOneOut, Raw

__all__ = [
    "K3",
    "PRESETS",
    "SGD",
    "Adam",
    "Batch",
    "Constant",
    "GroupMean",
    "GroupMeanStd",
    "LeaveOneOut",
    "NoKL",
    "PPOClip",
    "PolicyGradient",
    "Raw",
    "Rule",
    "SequenceMeanTokenMean",
    "SequenceSum",
    "TokenMean",
    "check_batch",
    "preset",
]
