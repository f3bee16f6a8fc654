"""Update rules: signal, objective, aggregation and KL -> one weight per sampled token."""

from theory.rules.aggregation import Constant, SequenceMeanTokenMean, SequenceSum, TokenMean
from theory.rules.batch import Batch, check_batch
from theory.rules.dialects import PRESETS, preset
from theory.rules.kl import K3, NoKL
from theory.rules.objectives import PolicyGradient, PPOClip
from theory.rules.optimiser import SGD, Adam
from theory.rules.rule import Rule
from theory.rules.signals import (
    GPG,
    OPO,
    BatchMean,
    BatchMeanStd,
    Greedy,
    GroupMean,
    GroupMeanBatchStd,
    GroupMeanStd,
    GroupMeanWhitened,
    LeaveOneOut,
    MaxRL,
    MovingAverage,
    PassAtK,
    Raw,
    RewardWindow,
    Sign,
)

__all__ = [
    "GPG",
    "K3",
    "OPO",
    "PRESETS",
    "SGD",
    "Adam",
    "Batch",
    "BatchMean",
    "BatchMeanStd",
    "Constant",
    "Greedy",
    "GroupMean",
    "GroupMeanBatchStd",
    "GroupMeanStd",
    "GroupMeanWhitened",
    "LeaveOneOut",
    "MaxRL",
    "MovingAverage",
    "NoKL",
    "PPOClip",
    "PassAtK",
    "PolicyGradient",
    "Raw",
    "RewardWindow",
    "Rule",
    "SequenceMeanTokenMean",
    "SequenceSum",
    "Sign",
    "TokenMean",
    "check_batch",
    "preset",
]
