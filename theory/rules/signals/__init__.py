"""Learning signals (advantages): rewards of a round -> one number per rollout.

Each signal is a frozen specification, a subclass of `SignalSpec`: `advance(batch, memory) -> ((R,), memory)`.
"""

from typing import Annotated

from pydantic import Field

from theory.rules.signals.gpg import GPG
from theory.rules.signals.greedy import Greedy
from theory.rules.signals.group import GroupMean, GroupMeanStd, LeaveOneOut
from theory.rules.signals.max_rl import MaxRL
from theory.rules.signals.moving_average import MovingAverage
from theory.rules.signals.opo import OPO
from theory.rules.signals.pass_at_k import PassAtK
from theory.rules.signals.raw import Raw, Sign
from theory.rules.signals.reward_window import RewardWindow
from theory.rules.signals.whole_batch import BatchMean, BatchMeanStd, GroupMeanBatchStd, GroupMeanWhitened

Signal = Annotated[
    Raw
    | Sign
    | GroupMean
    | GroupMeanStd
    | LeaveOneOut
    | BatchMean
    | BatchMeanStd
    | GroupMeanWhitened
    | GroupMeanBatchStd
    | Greedy
    | MovingAverage
    | RewardWindow
    | MaxRL
    | OPO
    | GPG
    | PassAtK,
    Field(discriminator="kind"),
]

__all__ = [
    "GPG",
    "OPO",
    "BatchMean",
    "BatchMeanStd",
    "Greedy",
    "GroupMean",
    "GroupMeanBatchStd",
    "GroupMeanStd",
    "GroupMeanWhitened",
    "LeaveOneOut",
    "MaxRL",
    "MovingAverage",
    "PassAtK",
    "Raw",
    "RewardWindow",
    "Sign",
    "Signal",
]
