"""The page on forecasts holds what the runs wrote, keeps what other runs wrote, and refuses folders without runs."""

import json
from datetime import date
from pathlib import Path

import pytest

from experiments.studies.forecast_table import GAPS, HEAD, PAGE, page, sections_of, write
from theory.refusal import Refusal
from theory.rules import preset

RULE = preset("group-mean", eta=0.2).model_dump(mode="json")
ROW = {
    "query": "3 + 4 = 7\n5 + 4 =", "model": "some-model", "rule": RULE, "replicas": 4, "rounds": 9, "p0": 0.25,
    "time_to_double_forecast": 5.0, "time_to_double_observed": 6.0, "time_to_double_agrees": True,
    "time_to_half_forecast": None, "time_to_half_observed": 7.5, "time_to_half_agrees": False,
    "coverage_50": 0.5, "coverage_90": 0.9, "crps_kernel": 0.02, "crps_sequence_kernel": 0.03,
    "crps_tabular": 0.04, "crps_constant": 0.05, "crps_logistic": 0.01, "residual_z": 1.5,
    "residual_z_windows": [0.0, 1.0, 1.0, 1.0],
}  # fmt: skip


def test_a_table_of_queries(tmp_path: Path) -> None:
    failed = {"query": "hopeless", "error": "no correct rollout"}
    (tmp_path / "summary.json").write_text(json.dumps({"queries": [ROW, ROW, failed]}))
    text = page([tmp_path])
    assert "some-model, `group-mean`, 8 rollouts per query, η = 0.2, 4 replicas, 9 rounds" in text
    row = "| 3 + 4 = 7 ⏎ 5 + 4 = | 0.25 | 5 / 6 | - / 7.5 | 0.50 / 0.90 | 0.02 | 0.03 | 0.04 | 0.05 | 0.01 | 1.5 |"
    assert text.count(row) == 2
    assert "in 2 of 2, than the logistic curve in 0; 2 of 4 times agree" in text
    assert "pooled z 2.121" in text and "Not forecast: hopeless." in text  # 2 x 1.5 / sqrt 2


SEVERAL = {
    "query": "2 queries, 1 per round; 1 held out", "model": "m", "rule": RULE, "queries": ["a", "b"], "held_out": ["c"],
    "batch": 1, "replicas": 4, "rounds": 9, "residual_z": 1.5,
}  # fmt: skip
ENGINES = ("kernel", "apart", "sequence_kernel", "tabular", "constant", "logistic")


def _set(prefix: str) -> dict[str, float]:
    numbers = {"p0": 0.1, "end_forecast": 0.4, "end_observed": 0.35, "coverage_50": 0.5, "coverage_90": 0.9}
    numbers |= {f"crps_{engine}": 0.01 * (n + 1) for n, engine in enumerate(ENGINES)}
    return {f"{prefix}{key}": value for key, value in numbers.items()}


def test_several_queries_in_one_run(tmp_path: Path) -> None:
    """A line for those trained on, one for those held out; a dash for what was not simulated, and for their z."""
    numbers = SEVERAL | _set("") | _set("held_out_")
    del numbers["crps_apart"], numbers["crps_tabular"]
    (tmp_path / "overlay.json").write_text(json.dumps(numbers))
    text = page([tmp_path])
    assert "η = 0.2: 2 queries together, 1 per round, 4 replicas, 9 rounds" in text
    each = "0.1 | 0.400 / 0.350 | 0.50 / 0.90 | 0.01"
    assert f"| queries trained on | {each} | - | 0.03 | - | 0.05 | 0.06 | 1.5 |" in text
    assert f"| 1 queries held out | {each} | 0.02 | 0.03 | 0.04 | 0.05 | 0.06 | - |" in text


def test_several_queries_with_none_held_out(tmp_path: Path) -> None:
    (tmp_path / "overlay.json").write_text(json.dumps(SEVERAL | {"held_out": []} | _set("")))
    text = page([tmp_path])
    assert "| queries trained on |" in text and "queries held out |" not in text


def test_a_run_of_one_query_is_a_table_of_one(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    (tmp_path / "one" / "overlay.json").write_text(json.dumps(ROW))
    one, many = (sections_of(page([folder])) for folder in (tmp_path / "one", _summary(tmp_path / "many")))
    assert one[0][0] == many[0][0] and one[0][1].partition("\n")[2] == many[0][1].partition("\n")[2]


def _summary(folder: Path, **changes: object) -> Path:
    folder.mkdir(exist_ok=True)
    (folder / "summary.json").write_text(json.dumps({"queries": [ROW | changes]}))
    return folder


def test_sections_of_other_runs_stay_as_they_stand(tmp_path: Path) -> None:
    one, two, to = (
        _summary(tmp_path / "one"),
        _summary(tmp_path / "two", model="other"),
        tmp_path / "a" / "p.md",
    )
    write([one, two], to=to)
    first, second = sections_of(to.read_text())
    assert "`onearm study table " + str(one) in first[1]
    old = second[1].replace(str(date.today()), "2001-02-03")
    to.write_text(to.read_text().replace(second[1], old))
    write([_summary(one, p0=0.125)], to=to)
    again = sections_of(to.read_text())
    assert again == [(first[0], first[1].replace(" 0.25 ", " 0.125 ")), (second[0], old)]
    write([_summary(one, model="third")], to=to)
    assert [heading for heading, _ in sections_of(to.read_text())][:2] == [first[0], second[0]]
    assert len(sections_of(to.read_text())) == 3


def test_what_explain_found_stands_below_the_queries(tmp_path: Path) -> None:
    """A line for each look, and none of a run with other settings."""
    look = {"updates": 3} | {gap: [0.1 * i, 0.01] for i, gap in enumerate(GAPS.values())}
    found = {
        "replicas": 4,
        "rounds": ROW["rounds"],
        "eta": 0.2,
        "p0": 0.25,
        "looks": [look, look | {"updates": 8}],
    }
    (tmp_path / "00").mkdir()
    (tmp_path / "00" / "explain.json").write_text(json.dumps(found))
    (tmp_path / "summary.json").write_text(json.dumps({"queries": [ROW | {"folder": "00"}]}))
    row = (
        "| 3 + 4 = 7 ⏎ 5 + 4 = | 4 | 8 | +0.000 ± 0.010 | +0.100 ± 0.010 | +0.200 ± 0.010 | +0.300 ± 0.010 |"
    )
    text = page([tmp_path])
    assert text.endswith(row + "\n") and "| after rounds | network - forecast | drift | truncation |" in text
    (tmp_path / "00" / "explain.json").write_text(json.dumps(found | {"eta": 0.3}))
    assert "after rounds" not in page([tmp_path])


def test_a_query_cannot_begin_a_section(tmp_path: Path) -> None:
    failed = {"query": "a\n## b", "error": "no correct rollout"}
    (tmp_path / "summary.json").write_text(json.dumps({"queries": [ROW, failed]}))
    ((_, body),) = sections_of(page([tmp_path]))
    assert body.endswith("Not forecast: a ⏎ ## b.")


def test_two_runs_with_one_heading_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match=r"one and .*two are both 'some-model, `group-mean`, 8 rollouts"):
        page([_summary(tmp_path / "one"), _summary(tmp_path / "two")])


def test_a_relinearised_run_has_a_section_of_its_own(tmp_path: Path) -> None:
    plain, anew = _summary(tmp_path / "one"), _summary(tmp_path / "two", relinearised_rounds=[3, 6])
    first, second = (heading for heading, _ in sections_of(page([plain, anew])))
    assert second == first + ", relinearised after 3, 6"


def test_the_page_of_this_repository() -> None:
    text = PAGE.read_text()
    sections = sections_of(text)
    assert text == page([], before=text) and text.startswith(HEAD)
    assert len({heading for heading, _ in sections}) == len(sections)
    assert all(body.startswith("`onearm study table ") for _, body in sections)


def test_folders_without_runs_are_refused(tmp_path: Path) -> None:
    with pytest.raises(Refusal, match="holds no finished overlay"):
        page([tmp_path])
    (tmp_path / "summary.json").write_text(json.dumps({"queries": [{"query": "q", "error": "e"}]}))
    with pytest.raises(Refusal, match="every query of its summary"):
        page([tmp_path])
