"""Whether another package hides one of ours: `theory`, `experiments` and `figures` are names that others use too."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from itertools import pairwise

PACKAGES = ("theory", "bandit_sim", "llm_bridge", "experiments", "figures")
HOME = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
"""The folder that holds `onearm` and the packages it opens."""


def check() -> None:
    """Nothing where every package is the one that came with `onearm`; none of them is imported.

    Errors: ImportError that names both paths and the fix. Where the process is the command `onearm`, the same words
    as its one-line error, and exit code 2.
    """
    for name in PACKAGES:
        found, ours = _where(name), os.path.join(HOME, name)
        if found is None or os.path.realpath(found) == ours:
            continue
        message = (
            f"{found} hides onearm's own package {name!r} ({ours}), since Python looks in {os.path.dirname(found)} "
            f"first; run from another folder, or rename {found}"
        )
        if _is_command():
            print(f"error: {message}", file=sys.stderr)
            raise SystemExit(2)
        raise ImportError(message)


def _where(name: str) -> str | None:
    """The folder or file that `import name` takes, found without importing it; None where there is none."""
    spec = sys.modules[name].__spec__ if name in sys.modules else find_spec(name)
    if spec is None:
        return None
    if spec.submodule_search_locations is None:
        return spec.origin
    return next(iter(spec.submodule_search_locations), None)


def _is_command() -> bool:
    """Whether this process is `onearm ...` or `python -m onearm ...`, whose user wants no traceback."""
    as_module = ("-m", "onearm") in pairwise(sys.orig_argv)
    script = os.path.splitext(os.path.basename(sys.argv[0]))[0] if sys.argv else ""
    return as_module or script == "onearm"
