"""GSM8K and MATH from local files: prompts, gold answers, strict rewards, and errors that name the row."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_bridge.queries.data_sets import DATA_SETS, data_set_queries
from llm_bridge.queries.sources import parse_source
from llm_bridge.rewards.verifiers import verify
from theory.refusal import Refusal
from theory.warning import QueryWarning

PUBLISHED = Path(os.environ.get("ONEARM_DATA", "../shared/data"))
GSM8K = {"question": "How many?", "answer": "16 - 3 = <<16-3=13>>13\n#### 13"}
MATH = {"problem": "Half?", "answer": r"so \boxed{\frac{1}{2}}", "level": "Level 1", "type": "Algebra"}


def written(folder: Path, rows: list[Any], name: str = "d.jsonl") -> Path:
    path = folder / name
    if name.endswith(".parquet"):
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text("\n".join(json.dumps(row) for row in rows))
    return path


@pytest.mark.parametrize("file", ["d.jsonl", "d.parquet"])
def test_the_papers_prompts_and_strict_rewards(tmp_path: Path, file: str) -> None:
    (query,) = parse_source(f"gsm8k:{written(tmp_path, [GSM8K], file)}")
    assert query.prompt == ('How many? Let\'s think step by step and output the final answer after "####".')
    assert (query.answer, query.verifier, query.name) == ("13", "gsm8k", "gsm8k-0")
    assert [verify(query, text) for text in ("#### 13", "#### 13.0", "13", "#### 12")] == [
        1.0,
        0.0,
        None,
        0.0,
    ]

    (query,) = parse_source(f"math:{written(tmp_path, [MATH], file)}")
    assert query.prompt == ("Half? Let's think step by step and output the final answer within \\boxed{}.")
    assert (query.answer, query.verifier, query.name) == (r"\frac{1}{2}", "math", "math-0")
    texts = (r"\boxed{0.5}", r"it is \boxed{1/2}.", r"\boxed{2/4}", "1/2", r"\boxed{}")
    assert [verify(query, text) for text in texts] == [1.0, 1.0, 0.0, None, 0.0]


@given(st.lists(st.integers(-(10**9), 10**9), min_size=1, max_size=4))
def test_the_gold_answer_pays_and_its_neighbour_does_not(
    tmp_path_factory: pytest.TempPathFactory, golds: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("d")
    rows = [{"question": "q", "answer": f"some {n + 1} steps\n#### {n:,}"} for n in golds]
    for n, query in zip(golds, data_set_queries("gsm8k", written(folder, rows)), strict=True):
        assert verify(query, f"#### {n}") == 1.0 == verify(query, f"#### {n:,}")
        assert verify(query, f"#### {n + 1}") == 0.0
    rows = [{"problem": "q", "answer": a} for n in golds for a in (f"{n}", f"\\boxed{{1}} \\boxed{{{n}}}")]
    for i, query in enumerate(data_set_queries("math", written(folder, rows))):
        assert verify(query, f"\\boxed{{{golds[i // 2]}}}") == 1.0
        assert verify(query, f"\\boxed{{{golds[i // 2] + 1}}}") == 0.0


@pytest.mark.parametrize("file", ["d.jsonl", "d.parquet"])
@pytest.mark.parametrize(
    ("name", "rows", "message"),
    [
        ("gsm8k", [MATH], "has the columns problem, answer, level, type; gsm8k wants question and answer"),
        ("math", [GSM8K], "has the columns question, answer; math wants problem and answer"),
        (
            "gsm8k",
            [GSM8K, GSM8K | {"answer": "thirteen"}],
            r"(line|row) 2: answer 'thirteen' cannot be parsed",
        ),
        ("gsm8k", [GSM8K, GSM8K | {"answer": "#### eggs"}], "(line|row) 2: answer .* cannot be parsed"),
        ("math", [MATH, MATH | {"problem": " "}], "(line|row) 2: prompt is empty"),
    ],
)
def test_bad_rows_are_named(
    tmp_path: Path, file: str, name: str, rows: list[dict[str, str]], message: str
) -> None:
    path = written(tmp_path, rows, file)
    with pytest.raises(Refusal, match=message) as caught:
        data_set_queries(name, path)
    assert str(path) in str(caught.value)


def test_bad_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match="is not a file"):
        parse_source("gsm8k:nowhere.parquet")
    with pytest.raises(Refusal, match="is empty; math wants problem and answer"):
        data_set_queries("math", written(tmp_path, []))
    with pytest.raises(Refusal, match="line 1: has the columns none"):
        data_set_queries("math", written(tmp_path, [[1]]))


def published(name: str) -> Path:
    path = PUBLISHED / name
    if not path.is_file():
        pytest.skip(f"{path} is not there; ONEARM_DATA may name a folder of it")
    return path


@pytest.mark.parametrize(
    ("name", "split", "rows"), [("gsm8k", "train", 7473), ("gsm8k", "test", 1319), ("math", "test", 5000)]
)
def test_the_published_files_read_whole(name: str, split: str, rows: int) -> None:
    """Row counts are those of the publications; every gold answer pays in its own format."""
    queries = data_set_queries(name, published(f"{name}-{split}.parquet"))
    assert len(queries) == rows
    said = "#### {}" if name == "gsm8k" else "\\boxed{{{}}}"
    assert all(verify(query, said.format(query.answer)) == 1.0 for query in queries)
    assert all(query.prompt.endswith(DATA_SETS[name].suffix) for query in queries)


def test_the_rows_of_math_without_an_answer_are_left_out_by_name() -> None:
    """MATH-lighteval's training set has two questions whose answers were lost."""
    path = published("math-train.parquet")
    with pytest.warns(QueryWarning, match="2 rows of 7,500 of .* left out: rows 5342, 5344: empty answer"):
        queries = data_set_queries("math", path)
    assert len(queries) == 7498
    names = {query.name for query in queries}
    assert "math-5340" in names and "math-5341" not in names and "math-7499" in names


@pytest.mark.parametrize("file", ["d.jsonl", "d.parquet"])
def test_empty_answers_are_left_out_loudly(tmp_path: Path, file: str) -> None:
    rows = [MATH, MATH | {"answer": r"so \boxed{}"}, MATH | {"answer": " "}, MATH | {"answer": "7"}]
    with pytest.warns(QueryWarning, match=r"2 rows of 4 of .* left out: rows 2, 3: empty answer"):
        queries = data_set_queries("math", written(tmp_path, rows, file))
    assert [(query.name, query.answer) for query in queries] == [("math-0", r"\frac{1}{2}"), ("math-3", "7")]
    with pytest.warns(QueryWarning, match=r"1 row of 2 .* left out: row 2: empty answer"):
        data_set_queries("gsm8k", written(tmp_path, [GSM8K, GSM8K | {"answer": "13 eggs\n#### "}], file))
    with pytest.raises(Refusal, match="is empty"):
        data_set_queries("math", written(tmp_path, [MATH | {"answer": ""}], file))


def test_so_many_queries_drawn_with_the_seed(tmp_path: Path) -> None:
    path = written(tmp_path, [GSM8K | {"question": f"{i}?"} for i in range(30)])
    whole, few = parse_source(f"gsm8k:{path}"), parse_source(f"gsm8k:{path}", size=5)
    assert few == parse_source(f"gsm8k:{path}", size=5) and set(few) < set(whole)
    assert few != parse_source(f"gsm8k:{path}", size=5, seed=1)
    assert len(set(few)) == 5 and sorted(parse_source(f"gsm8k:{path}", size=30), key=whole.index) == whole
    with pytest.raises(Refusal, match=r"size is 31, of 30 queries in .*; ask for 1 to 30"):
        parse_source(f"gsm8k:{path}", size=31)
    with pytest.raises(Refusal, match="split 'train' is of gsm8k or math from the hub, not of builtin"):
        parse_source("builtin", split="train")


def hub(monkeypatch: pytest.MonkeyPatch, data_set: str, /, **arguments: Any) -> None:
    """The data set's place on the hub, for the test another."""
    monkeypatch.setitem(DATA_SETS, data_set, replace(DATA_SETS[data_set], hub=arguments))


@pytest.mark.parametrize("kind", ["parquet", "json"])
def test_from_the_hub_by_datasets(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The code that reads the hub, on local files of its layouts: MATH has its answers in solutions there."""
    pytest.importorskip("datasets")
    file = {"parquet": "d.parquet", "json": "d.jsonl"}[kind]
    math = [
        {"problem": "Half?", "level": "1", "solution": solution, "type": "Algebra"}
        for solution in (MATH["answer"], "no box", "7 or \\boxed{8}")
    ]
    for name, table in {"gsm8k": [GSM8K, GSM8K | {"question": "And now?"}], "math": math}.items():
        (tmp_path / name).mkdir()
        path = str(written(tmp_path / name, table, file))
        hub(
            monkeypatch, name, path=kind, data_files={"train": path, "test": path},
            cache_dir=str(tmp_path / "cache"),
        )  # fmt: skip
    asked = parse_source("gsm8k", split="train")
    assert asked == parse_source(f"gsm8k:{tmp_path / 'gsm8k' / file}") == parse_source("gsm8k")
    with pytest.warns(QueryWarning, match="row 2: empty answer"):
        asked = parse_source("math")
    assert [query.answer for query in asked] == [r"\frac{1}{2}", "8"]
    with pytest.raises(Refusal, match=r"split 'dev'\) cannot be loaded: .*; check --split.*gsm8k:FILE"):
        parse_source("gsm8k", split="dev")


def test_a_hub_out_of_reach_names_the_file_form(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    datasets = pytest.importorskip("datasets")
    monkeypatch.setattr(datasets.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    hub(monkeypatch, "gsm8k", path="openai/gsm8k", name="main", cache_dir=str(tmp_path))
    with pytest.raises(
        ValueError, match=r"gsm8k \(openai/gsm8k, split 'test'\) cannot be loaded: .*gsm8k:FILE"
    ):
        parse_source("gsm8k")


def test_without_datasets_the_file_form_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(Refusal, match=r"pip install 'onearm\[data\]', or give a local file .*math:FILE"):
        parse_source("math")
