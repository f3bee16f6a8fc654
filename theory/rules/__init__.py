"""Update rules: signal, objective, aggregation, KL and entropy -> one weight per sampled token."""

from theory.rules.aggregation import (
    Constant,
    MicroBatchTokenMean,
    SequenceMeanTokenMean,
    SequenceSum,
    TokenMean,
)
from theory.rules.batch import Batch, check_batch
from theory.rules.dialects import PRESETS, preset
from theory.rules.entropy import ExactEntropy, NoEntropy, SampledEntropy, entropy_gradient
from theory.rules.kl import K1, K2, K3, KAbs, NoKL
from theory.rules.objectives import CISPO, GMPO, GSPO, PolicyGradient, PPOClip, SequenceClip
from theory.rules.optimiser import SGD, Adam
from theory.rules.rule import Rule
from theory.rules.schedule import ConstantRate, CosineDecay, LinearDecay
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
    "CISPO",
    "GMPO",
    "GPG",
    "GSPO",
    "K1",
    "K2",
    "K3",
    "OPO",
    "PRESETS",
    "SGD",
    "Adam",
    "Batch",
    "BatchMean",
    "BatchMeanStd",
    "Constant",
    "ConstantRate",
    "CosineDecay",
    "ExactEntropy",
    "Greedy",
    "GroupMean",
    "GroupMeanBatchStd",
    "GroupMeanStd",
    "GroupMeanWhitened",
    "KAbs",
    "LeaveOneOut",
    "LinearDecay",
    "MaxRL",
    "MicroBatchTokenMean",
    "MovingAverage",
    "NoEntropy",
    "NoKL",
    "PPOClip",
    "PassAtK",
    "PolicyGradient",
    "Raw",
    "RewardWindow",
    "Rule",
    "SampledEntropy",
    "SequenceClip",
    "SequenceMeanTokenMean",
    "SequenceSum",
    "Sign",
    "TokenMean",
    "check_batch",
    "entropy_gradient",
    "preset",
]
