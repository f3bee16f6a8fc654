"""The law table: every row draws, every parameter matters, and nothing unknown passes."""

import numpy as np
import pytest

from theory.laws import LAWS, law
from theory.refusal import Refusal

rows = pytest.mark.parametrize("row", LAWS.values(), ids=LAWS)


@rows
def test_a_row_draws_finite_series_over_an_ascending_abscissa(row):
    series = list(row().values())
    assert len(series) >= 2 and all(len(values) == len(series[0]) for values in series)
    assert all(np.all(np.isfinite(values)) for values in series)
    assert np.all(np.diff(series[0]) > 0)


def another(name: str, default):
    if isinstance(default, bool):
        return not default
    if name == "ddof":
        return 1 - default
    if isinstance(default, int):
        return default + 1 if default else 2  # 0 means endless, and a group has two
    return 0.7 * default


@rows
def test_every_parameter_of_a_row_changes_what_it_draws(row):
    short = {"rounds": 10} if "rounds" in row.parameters else {}
    standard = row(**short)
    for name, default in row.parameters.items():
        drawn = row(**short | {name: another(name, default)})
        same = set(drawn) == set(standard) and all(np.array_equal(drawn[key], standard[key]) for key in drawn)
        assert not same, f"{row.name}: {name} changes nothing"


@rows
def test_an_unknown_parameter_is_named(row):
    with pytest.raises(Refusal, match=f"law {row.name} has no parameter 'colour'; it has "):
        row(colour=1)


def test_a_row_says_all_it_must_in_a_line():
    for name, row in LAWS.items():
        assert name == row.name and name == name.lower()
        assert all(0 < len(text) < 100 and "\n" not in text for text in (row.source, row.predicts, row.check))


def test_an_unknown_law_is_named():
    assert law("kappa") is LAWS["kappa"]
    with pytest.raises(Refusal, match="law 'gravity' is unknown; choose one of first-success"):
        law("gravity")
