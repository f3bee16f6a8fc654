"""Train to the end, whatever interrupts: the trainer's state and all rows so far are kept under the round's number."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from experiments.folder import store
from experiments.folder.observed import write_observed
from llm_bridge.train import Round, Trainer

EVERY = 10
"""Rounds from one checkpoint to the next."""
Rows = list[dict[str, Any]]


def files(out: Path) -> list[Path]:
    return sorted([*out.glob("checkpoint-*.safetensors"), *out.glob("checkpoint-*.parquet")])


def save(out: Path, trainer: Trainer, rows: Rows, stage: str, seconds: float) -> None:
    """State and rows under the round's number; older ones go only when both new ones are there."""
    old, name = files(out), f"checkpoint-{trainer.round:06d}"
    with store.replacing(out / f"{name}.safetensors") as temporary:
        save_file(trainer.state(), temporary, {"stage": stage})
    write_observed(out / f"{name}.parquet", rows, {"stage": stage, "seconds": repr(seconds)})
    for path in old:
        if path.stem != name:
            path.unlink(missing_ok=True)


def resume(out: Path, trainer: Trainer, stage: str) -> tuple[Rows, float]:
    """Rows and seconds of the newest whole checkpoint, loaded into the trainer; nothing where there is none."""
    for path in sorted(out.glob("checkpoint-*.parquet"), reverse=True):
        found = store.read_rows(path, stage)
        state = path.with_suffix(".safetensors")
        if found is None or not state.exists():
            continue
        try:
            tensors = load_file(state)
        except SafetensorError:
            continue  # half-written: an older checkpoint is worth more than its newest part
        trainer.load_state(tensors)
        rows, notes = found
        return rows, float(notes["seconds"])
    return [], 0.0


def train(
    out: Path,
    trainer: Trainer,
    rounds: int,
    stage: str,
    record: Callable[[Round], Rows],
    progress: Callable[[str, int, int], None],
    look: Callable[[], Rows] = list,
) -> None:
    """Train up to `rounds` from the newest checkpoint, and write observed.parquet.

    Arguments:
        record: a round as rows; look: rows from before a round, such as held-out rollouts.
    """
    rows, seconds = resume(out, trainer, stage)
    progress("train", trainer.round, rounds)
    try:
        while trainer.round < rounds:
            looked = look()
            turn = trainer.step()
            rows.extend([*looked, *record(turn)])
            seconds += turn.seconds
            progress("train", trainer.round, rounds)
            if trainer.round % EVERY == 0:
                save(out, trainer, rows, stage, seconds)
    except BaseException:
        # Between a round and its rows there is nothing to go on from; an older checkpoint is.
        if trainer.whole and rows and rows[-1]["round"] == trainer.round:
            save(out, trainer, rows, stage, seconds)
        raise
    write_observed(out / "observed.parquet", rows, {"stage": stage, "seconds": repr(seconds)})
    for path in files(out):
        path.unlink(missing_ok=True)
