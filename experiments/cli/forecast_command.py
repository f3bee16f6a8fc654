"""`onearm forecast`: the learning curve, before anything is trained."""

from __future__ import annotations

from experiments.cli.stages import stage

TEXT = """Forecast the learning curve from the base model alone: nothing is trained, nothing is fitted.

The base model is measured first (onearm probe), and the update rule is then simulated on what was found:
success over rounds, its spread over seeds, and the risk of never starting. The step size eta says how far one
round moves the model. Two things limit a forecast: drift (the network itself changes as it is trained;
--relinearise measures it again on the way) and truncation (responses too rare to be in the probe; more
--probe-rollouts find them).

Example: onearm forecast --query 'What is 17 + 25?' --answer 42 --out runs/mine
"""
COMMAND = stage("forecast", TEXT)
