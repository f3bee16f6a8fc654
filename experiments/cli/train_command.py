"""`onearm train`: the real thing."""

from __future__ import annotations

from experiments.cli.stages import stage

TEXT = """Run the real reinforcement fine-tuning: replicas of the model, trained side by side.

Every replica is a run of its own, with its own seed: their spread is the spread that a forecast is held
against. The base model is not changed; what is trained is kept in the run's folder.

Example: onearm train --query 'What is 17 + 25?' --answer 42 --rounds 40 --out runs/mine
"""
COMMAND = stage("train", TEXT)
