"""Names for help texts, out of the registries: a help text says {rules}, and is filled in when it is read."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable

PROFILES = ("two_class", "power_law", "log_normal")
ENGINES = ("auto", "dense", "lumped", "event", "kernel", "tree", "lazy_tree", "tree_kernel", "contexts")
OBSERVABLES = (
    "held_out", "reward", "outcome", "entropy", "winner_share", "gradient_norm", "signal", "noise", "zero_signal",
    "distinct", "regret", "class_mass",
)  # fmt: skip
"""Names of registries that load torch or JAX, which takes longer than reading a help text; a test holds them equal."""


def _rules() -> str:
    from theory.rules.dialects import PRESETS

    return braced(PRESETS)


def _verifiers() -> str:
    from llm_bridge.rewards.verifiers import VERIFIERS

    return any_of(name for name, row in VERIFIERS.items() if not row.entry)


def _pays() -> str:
    from theory.pay import PAYS

    said = {kind: (pay.__doc__ or "").splitlines()[0].rstrip(".") for kind, pay in PAYS.items()}
    return "; ".join(f"{kind} ({text[:1].lower()}{text[1:]})" for kind, text in said.items())


def _models() -> str:
    from llm_bridge.models.registry import MODELS

    return ", ".join(MODELS)


def _data_sets() -> str:
    from llm_bridge.queries.data_sets import DATA_SETS

    return any_of(DATA_SETS)


def _trainers() -> str:
    from experiments.exports.export import VERSIONS

    return any_of(VERSIONS)


REGISTRIES: dict[str, Callable[[], str]] = {
    "rules": _rules,
    "verifiers": _verifiers,
    "pays": _pays,
    "data_sets": _data_sets,
    "trainers": _trainers,
    "models": _models,
    "profiles": lambda: any_of(PROFILES),
    "engines": lambda: any_of(ENGINES),
    "observables": lambda: any_of(OBSERVABLES),
}
"""What stands for a registry in a help text, and how its names are written there."""


def filled(text: str) -> str:
    """The text with the names of every registry it mentions; other braces stay as they are."""
    return re.sub(r"\{(\w+)\}", lambda m: REGISTRIES[m[1]]() if m[1] in REGISTRIES else m[0], text)


def any_of(names: Iterable[str]) -> str:
    """'a, b or c'."""
    *first, last = names
    return f"{', '.join(first)} or {last}" if first else last


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
