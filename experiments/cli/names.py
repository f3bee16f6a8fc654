"""Names for help texts, out of the registries: a help text says {rules}, and is filled in when it is read.

None of the registries loads torch or JAX, which takes longer than reading a help text.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping


def _rules() -> str:
    from theory.rules.dialects import PRESETS

    return braced(PRESETS)


def _verifiers() -> str:
    from llm_bridge.rewards.verifiers import VERIFIERS

    return any_of(name for name, row in VERIFIERS.items() if not row.entry)


def _pays() -> str:
    from theory.pay import PAYS

    said = {kind: (pay.__doc__ or "").splitlines()[0].rstrip(".") for kind, pay in PAYS.items()}
    return explained({kind: text[:1].lower() + text[1:] for kind, text in said.items()})


def _data_sets() -> str:
    from llm_bridge.queries.data_sets import DATA_SETS

    return any_of(DATA_SETS)


def _trainers() -> str:
    from experiments.exports.export import VERSIONS

    return any_of(VERSIONS)


def _models() -> str:
    from llm_bridge.models.registry import MODELS

    return ", ".join(MODELS)


def _profiles() -> str:
    from experiments.simulation.bandits import PROFILES

    return any_of(PROFILES)


def _engines() -> str:
    from bandit_sim.engines.registry import ENGINES

    return explained({name: row.summary for name, row in ENGINES.items()})


def _observables() -> str:
    from bandit_sim.rounds.observe import SUMMARIES

    return explained({name: text for name, text in SUMMARIES.items() if name != "success"})


REGISTRIES: dict[str, Callable[[], str]] = {
    "rules": _rules,
    "verifiers": _verifiers,
    "pays": _pays,
    "data_sets": _data_sets,
    "trainers": _trainers,
    "models": _models,
    "profiles": _profiles,
    "engines": _engines,
    "observables": _observables,
}
"""What stands for a registry in a help text, and how its names are written there."""


def filled(text: str) -> str:
    """The text with the names of every registry it mentions; other braces stay as they are."""
    return re.sub(r"\{(\w+)\}", lambda m: REGISTRIES[m[1]]() if m[1] in REGISTRIES else m[0], text)


def any_of(names: Iterable[str]) -> str:
    """'a, b or c'."""
    *first, last = names
    return f"{', '.join(first)} or {last}" if first else last


def explained(rows: Mapping[str, str]) -> str:
    """'a (what it is); b (what that is)'."""
    return "; ".join(f"{name} ({text})" for name, text in rows.items())


def braced(names: Iterable[str]) -> str:
    """Names in their order, those of one trainer together: 'rloo, verl-{grpo, rloo}'."""
    groups: dict[str, list[str]] = {}
    for name in names:
        groups.setdefault(name.partition("-")[0], []).append(name)
    return ", ".join(_shared(group) for group in groups.values())


def _shared(group: list[str]) -> str:
    words = [name.split("-") for name in group]
    same = 0
    while len(group) > 1 and len({tuple(word[: same + 1]) for word in words}) == 1:
        same += 1
    if same == 0 or any(len(word) == same for word in words):
        return ", ".join(group)
    ends = ", ".join("-".join(word[same:]) for word in words)
    return f"{'-'.join(words[0][:same])}-{{{ends}}}"
