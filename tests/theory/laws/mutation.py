"""A law with one number wrong: the comparison that accepts the law must reject every such copy."""

from __future__ import annotations

import ast
import copy
import inspect
import sys
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

ARITHMETIC = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.Pow)


def mutants(law: Callable[..., Any], factor: float = 1.1, *, helpers: tuple[str, ...] = ()) -> Iterator[Any]:
    """(description, copy) of the law, each with one place of its formula changed by `factor`.

    Places: every number that stands in an arithmetic operation (a constant, or an exponent) is multiplied, and every
    variable or call in one is raised to that power. The module's source is rewritten and executed again, so that
    the copy is the law's own code; `helpers` are further functions of the module whose formulas belong to the law.
    """
    module = sys.modules[law.__module__]
    tree = ast.parse(inspect.getsource(module))
    for index in range(len(_places(tree, (law.__name__, *helpers)))):
        changed = copy.deepcopy(tree)
        operation, side = _places(changed, (law.__name__, *helpers))[index]
        old = getattr(operation, side)
        if isinstance(old, ast.Constant):
            new: ast.expr = ast.Constant(old.value * factor)
        else:
            new = ast.BinOp(old, ast.Pow(), ast.Constant(factor))
        setattr(operation, side, new)
        label = f"line {old.lineno}: {ast.unparse(old)} -> {ast.unparse(new)} in {ast.unparse(operation)}"
        namespace = dict(vars(module))
        exec(compile(ast.fix_missing_locations(changed), module.__name__, "exec"), namespace)
        yield label, namespace[law.__name__]


def survivors(
    law: Callable[..., Any],
    agrees: Callable[[Any], Any],
    factor: float = 1.1,
    *,
    helpers: tuple[str, ...] = (),
    equivalent: tuple[str, ...] = (),
) -> list[str]:
    """The mutants that `agrees` accepts although it should not.

    A mutant that raises (a count that is no longer whole, say) shows nothing about the comparison and is left out;
    at least one must be rejected by it. `equivalent` are parts of descriptions of mutants that change no value.
    """
    assert agrees(law), "the comparison rejects the law itself"
    accepted, rejected = [], 0
    for label, mutant in mutants(law, factor, helpers=helpers):
        try:
            with np.errstate(all="ignore"):
                agreed = bool(agrees(mutant))
        except Exception:
            continue
        if not agreed:
            rejected += 1
        elif not any(part in label for part in equivalent):
            accepted.append(label)
    assert rejected, "no mutant was rejected: the comparison shows nothing"
    return accepted


def _places(tree: ast.Module, names: tuple[str, ...]) -> list[tuple[ast.BinOp, str]]:
    functions = [node for node in tree.body if isinstance(node, ast.FunctionDef) and node.name in names]
    assert len(functions) == len(set(names)), f"not all of {names} are functions of the module"
    found = []
    for node in (node for function in functions for node in ast.walk(function)):
        if isinstance(node, ast.BinOp) and isinstance(node.op, ARITHMETIC):
            for side in ("left", "right"):
                operand = getattr(node, side)
                number = isinstance(operand, ast.Constant) and isinstance(operand.value, int | float)
                if number or isinstance(operand, ast.Name | ast.Call | ast.Subscript | ast.Attribute):
                    found.append((node, side))
    return found
