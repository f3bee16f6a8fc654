"""`onearm probe`: measure the base model."""

from __future__ import annotations

from experiments.cli.stages import stage

TEXT = """Measure the base model on a query: how often it succeeds (p0), which responses it gives, and how one response,
reinforced, moves the others.

The probe samples responses from the base model, judges them, and takes one gradient for each token in the tree
of responses. The inner products of these gradients are the kernel: they say how reinforcing one response moves
the probability of another. Nothing is trained.

Example: onearm probe --query 'What is 17 + 25?' --answer 42 --out runs/mine
"""
COMMAND = stage("probe", TEXT)
