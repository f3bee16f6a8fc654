"""What is done with a run, as functions of a run, or of a spec and a folder: probe, forecast, overlay, explain, screen.

Each loads what it needs when it is called: to probe takes no JAX.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from theory.refusal import Refusal

if TYPE_CHECKING:
    from experiments.compare.overlay import Overlay
    from experiments.run.run import Run
    from experiments.specs import RunSpec
    from llm_bridge.queries.query import Query
    from theory.trees.joint_probe import JointProbe

Progress = Callable[[str, int, int], None]


def probe(
    asked: Run | RunSpec, out: Path | str | None = None, progress: Progress | None = None
) -> JointProbe:
    """Measure the bandit on the base model: p0, the response tree, the kernel; or find it in the folder.

    Arguments:
        asked: a run, or the spec of one.
        out: the folder, with a spec; a run has one.
        progress: called as progress(label, done, total).
    Errors: Refusal for a spec without a folder, a run with a second one, and a folder that holds another spec.
    """
    return _run(asked, out, progress).probe()


def forecast(
    asked: Run | RunSpec, out: Path | str | None = None, progress: Progress | None = None
) -> dict[str, Any]:
    """Forecast the learning curve from the base model alone, as numbers; never trains.

    Arguments, errors: those of `probe`.
    """
    from experiments.compare.numbers import forecast_numbers

    return forecast_numbers(_run(asked, out, progress))


def overlay(asked: Run | RunSpec, out: Path | str | None = None, progress: Progress | None = None) -> Overlay:
    """Forecast, train and compare: the numbers (`.numbers`), and the picture in the folder.

    Arguments, errors: those of `probe`.
    """
    from experiments.compare.overlay import overlay as made

    return made(_run(asked, out, progress))


def explain(
    asked: Run | RunSpec, out: Path | str | None = None, progress: Progress | None = None, **options: Any
) -> dict[str, Any]:
    """Say why the forecast and the run of a finished overlay differ: drift, truncation or chance.

    Arguments: those of `probe`, and the options of `experiments.compare.explain.explain`.
    Errors: those of `probe`, and Refusal where the folder holds no finished run.
    """
    from experiments.compare.explain import explain as found

    return found(_run(asked, out, progress), **options)


def screen(
    queries: Sequence[Query], out: Path | str, progress: Progress | None = None, **fields: Any
) -> dict[str, Any]:
    """Find the queries that the base model answers neither never nor always; writes queries.jsonl into the folder.

    Arguments:
        queries: the set, in its own order.
        out: the folder.
        progress: called as progress(label, done, total).
        fields: of `ScreenSpec`: low, high, budget, model, max_tokens, ...
    Errors: Refusal for a field that makes no sense, and a folder that holds another screening.
    """
    from experiments.screening.screen import Screening
    from experiments.screening.spec import ScreenSpec, digest_of

    spec = ScreenSpec(**{"source": "given", **fields, "queries": digest_of(queries)})
    return Screening(spec, Path(out), progress or _silent, queries=queries).run()


def _run(asked: Run | RunSpec, out: Path | str | None, progress: Progress | None) -> Run:
    from experiments.run.run import Run

    if isinstance(asked, Run):
        if out is not None or progress is not None:
            raise Refusal(
                "a run has its folder and its progress; leave out and progress out, or give its spec"
            )
        return asked
    if out is None:
        raise Refusal("out is missing; a spec needs a folder to be run in, such as out='runs/mine'")
    return Run(asked, Path(out), progress or _silent)


def _silent(label: str, done: int, total: int) -> None:
    return None
