"""`onearm overlay`: forecast and run, and how well they agree."""

from __future__ import annotations

from experiments.cli.stages import stage

TEXT = """Forecast, train, and lay the two over each other: a picture, and numbers for how well they agree.

Takes the same options as onearm forecast, which never trains.

Examples: onearm overlay --query 'What is 17 + 25?' --answer 42 --out runs/mine

onearm overlay --queries builtin --out runs/many

onearm overlay --queries builtin --together --batch 4 --held-out 5 --out runs/together
"""
COMMAND = stage("overlay", TEXT)
