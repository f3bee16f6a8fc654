"""How coarse the numbers of a model in bfloat16 are, as its probe noted."""

from __future__ import annotations

import numpy as np

from theory.trees.joint_probe import JointProbe


def rounding_of(joint: JointProbe) -> dict[str, float]:
    """rounding_mean and rounding_most of a model in bfloat16, all queries taken together; else nothing."""
    records = [probe.meta for probe in joint.probes]
    mean = [record.rounding_mean for record in records if record.rounding_mean is not None]
    most = [record.rounding_most for record in records if record.rounding_most is not None]
    if len(mean) < len(records):
        return {}
    return {"rounding_mean": float(np.mean(mean)), "rounding_most": max(most)}
