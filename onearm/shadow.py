"""Whether another package hides one of ours: `theory`, `experiments` and `figures` are names that others use too."""

from __future__ import annotations

import os
import sys
from importlib.machinery import ModuleSpec
from importlib.util import find_spec
from itertools import pairwise

PACKAGES = ("theory", "bandit_sim", "llm_bridge", "experiments", "figures")
HOME = os.path.dirname(os.path.dirname(os.path.realpath(__file__)))
"""The folder that holds `onearm` and the packages it opens."""


def check() -> None:
    """Nothing where every package is the one that came with `onearm`; none of them is imported.

    A plain folder of the same name, say of pictures, is no package and hides nothing of an installed one; of one
    installed for editing (`pip install -e`) it would, unless HOME is searched as folders are: then it is appended
    to `sys.path`.

    Errors: ImportError that names both paths and the fix. Where the process is the command `onearm`, the same words
    as its one-line error, and exit code 2.
    """
    for name in PACKAGES:
        spec = _spec(name)
        if spec is not None and spec.origin is None and HOME not in sys.path:
            sys.path.append(HOME)
            spec = _spec(name)
        found, ours = _path(spec), os.path.join(HOME, name)
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


def _spec(name: str) -> ModuleSpec | None:
    """What `import name` takes, found without importing it."""
    return sys.modules[name].__spec__ if name in sys.modules else find_spec(name)


def _path(spec: ModuleSpec | None) -> str | None:
    """The folder of a package, or the file of a module."""
    if spec is None or spec.submodule_search_locations is None:
        return spec and spec.origin
    return next(iter(spec.submodule_search_locations), None)


def _is_command() -> bool:
    """Whether this process is `onearm ...` or `python -m onearm ...`, whose user wants no traceback."""
    as_module = ("-m", "onearm") in pairwise(sys.orig_argv)
    script = os.path.splitext(os.path.basename(sys.argv[0]))[0] if sys.argv else ""
    return as_module or script == "onearm"
