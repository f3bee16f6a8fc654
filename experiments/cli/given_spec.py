"""The spec of a run that a command's options describe."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from experiments.cli.given_queries import parted, queries_of
from theory.refusal import Refusal

if TYPE_CHECKING:
    from experiments.cli.command import Given, Option
    from experiments.specs import RunSpec

COORDINATES = 4096
"""Parameters that are simulated where the optimiser acts on each of them, if no number is given."""


def specs_of(given: Given, options: Sequence[Option]) -> list[RunSpec]:
    """One spec with all queries where they are trained together, else one for each query."""
    from experiments.specs import HeldOut, RunSpec
    from experiments.specs.run_spec import default_forecast

    asked, held_out = parted(given, queries_of(given))
    fields = fields_of(given, options)
    if not given.together:
        return [RunSpec(queries=(query,), **fields) for query in asked]
    fields |= given.some("batch")
    if held_out:
        looks = {"every": given.look_every, "rollouts": given.look_rollouts}
        named = {name: value for name, value in looks.items() if value is not None}
        fields["held_out"] = HeldOut(queries=tuple(held_out), **named)
    if "forecast" in fields:  # what --relinearise says stands beside the defaults of several queries
        fields["forecast"] = default_forecast({"queries": asked}).model_dump() | fields["forecast"]
    return [RunSpec(queries=tuple(asked), **fields)]


def fields_of(given: Given, options: Sequence[Option]) -> dict[str, Any]:
    """The fields of a `RunSpec` but its queries: those that options fill by themselves, and those made of several."""
    from theory.rules.dialects import optimised, preset

    if not given.relinearise and (asked := given.some("relinearise_networks", "relinearise_rollouts")):
        flag = next(iter(asked)).replace("_", "-")
        raise Refusal(f"--{flag} is of --relinearise; give it, or leave both out")
    fields = _filled(given, options)
    rule = optimised(preset(given.rule, eta=given.eta, rollouts=given.rollouts), given.optimiser)
    fields["rule"] = rule
    if given.coordinates is None and not rule.optimiser.linear:
        fields["probe"]["coordinates"] = COORDINATES
    if given.pay is not None:
        from theory.pay import named_pay

        fields["pay"] = named_pay(given.pay)
    return fields | _adapter(given.full, given.adapter_blocks)


def _filled(given: Given, options: Sequence[Option]) -> dict[str, Any]:
    """What options fill: a value at each dotted field; what was not given is left to the spec."""
    fields: dict[str, Any] = {}
    for option in options:
        value = given[option.name] if option.field else None
        if value is None or value == []:
            continue
        *path, last = option.field.split(".")
        inner = fields
        for name in path:
            inner = inner.setdefault(name, {})
        inner[last] = tuple(value) if isinstance(value, list) else value
    return fields


def _adapter(full: bool, blocks: str | None) -> dict[str, Any]:
    """The field `adapter`, where something is said of it."""
    from llm_bridge.network.specs import AdapterSpec, FullSpec

    if full and blocks is not None:
        raise Refusal("--full trains every block and --adapter-blocks names some; give one of them")
    if full:
        return {"adapter": FullSpec()}
    return {} if blocks is None else {"adapter": AdapterSpec(blocks=blocks)}  # pyright: ignore[reportArgumentType]
