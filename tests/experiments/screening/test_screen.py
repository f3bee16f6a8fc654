"""Screening: verdicts against exact success, a record that survives being stopped, and what it says."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
from scipy import stats
from typer.testing import CliRunner

from experiments.cli.app import app
from experiments.screening.report import line_of
from experiments.screening.screen import Screening
from experiments.screening.spec import ScreenSpec, digest_of
from experiments.specs import ModelSpec
from llm_bridge.models.language_model import LanguageModel, load_model
from llm_bridge.network.specs import AdapterSpec
from llm_bridge.network.split import SplitModel
from llm_bridge.probe.enumerate import enumerate_responses
from llm_bridge.queries.procedural import reasoning_gym_queries
from llm_bridge.queries.query import Query
from llm_bridge.queries.sources import load_queries
from llm_bridge.rewards.verifiers import score
from llm_bridge.rollouts.base_rollouts import Visit
from llm_bridge.rollouts.rollouts import read_prompt

SUMS = [
    Query(prompt=f"{a}+{b}=", answer=str(a + b), verifier="integer", name=f"{a}+{b}")
    for a in range(10)
    for b in (0, 8)
]


@pytest.fixture(scope="module")
def tiny() -> LanguageModel:
    return load_model("tiny-arithmetic")


def spec(queries: list[Query] = SUMS, **changes: Any) -> ScreenSpec:
    fields = {
        "source": "test", "queries": digest_of(queries), "model": ModelSpec(name="tiny-arithmetic"),
        "low": 0.2, "high": 0.8, "budget": 800, "max_tokens": 3,
    }  # fmt: skip
    return ScreenSpec(**(fields | changes))


class Coins(Screening):
    """Queries that are coins of given success; nothing is loaded."""

    success: np.ndarray
    seed = 0

    def _draw(self, visits: Sequence[Visit]) -> Iterator[tuple[Visit, list[dict[str, Any]]]]:
        for visit in visits:
            number, first, count = visit.number, visit.first, visit.rollouts
            luck = np.random.default_rng((self.seed, number)).random(first + count)[first:]
            yield (
                visit,
                [
                    {
                        "number": number,
                        "rollout": first + i,
                        "outcome": x,
                        "reward": x,
                        "tokens": 1,
                        "text": "",
                    }
                    for i, x in enumerate((luck < self.success[number]).astype(float).tolist())
                ],
            )


def coins(folder: Path, success: list[float], **changes: Any) -> Coins:
    queries = [Query(prompt=f"coin {i}", answer="1") for i in range(len(success))]
    made = Coins(spec(queries, **changes), folder, queries=queries)
    made.success = np.array(success)
    return made


def table(folder: Path) -> list[dict[str, Any]]:
    return pq.read_table(folder / "screen.parquet").to_pylist()


class Stop(KeyboardInterrupt):
    """Somebody pressed Ctrl-C."""


def stop_at(rollouts: int):
    def progress(label: str, done: int, total: int) -> None:
        if done >= rollouts:
            raise Stop

    return progress


def test_verdicts_agree_with_the_exact_success(tmp_path: Path, tiny: LanguageModel) -> None:
    """Each decided query of the model that can be enumerated lies where it is said to. False alarm: 20 queries, each
    wrong with probability at most 5%; 5 or more wrong has probability .0026."""
    made = Screening(spec(budget=1600, low=0.3, high=0.9), tmp_path, model=tiny, queries=SUMS).run()
    split = SplitModel(tiny.model, AdapterSpec(blocks=1))
    wrong = 0
    for row in made["queries"]:
        if row["verdict"] == "undecided":
            continue
        query = SUMS[row["number"]]
        whole = enumerate_responses(
            split,
            read_prompt(split, tiny.encode_prompt(query.prompt)),
            lambda tokens, query=query: score([query.outcome(tiny.decode(list(tokens)))])[0],
            max_tokens=3,
            end_tokens=tiny.end_tokens,
        )
        p = float(whole.mass @ whole.rewards)
        where = "too hard" if p < 0.3 else "too easy" if p > 0.9 else "in range"
        wrong += row["verdict"] != where
    assert wrong <= 4
    assert made["rollouts"] <= 1600 and made["in_range"] >= 2 and made["too_hard"] >= 2
    assert load_queries(tmp_path / "queries.jsonl") == [
        SUMS[row["number"]] for row in made["queries"] if row["verdict"] == "in range"
    ]


def test_a_screening_that_was_stopped_ends_with_the_same_table(
    tmp_path: Path, tiny: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    straight = Screening(spec(), tmp_path / "straight", model=tiny, queries=SUMS).run()
    for limit in (40, 400):
        with pytest.raises(Stop):
            Screening(spec(), tmp_path / "stopped", stop_at(limit), tiny, queries=SUMS).run()
    (tmp_path / "stopped" / ".rollouts.1.parquet").write_bytes(b"half")
    before = pq.read_table(tmp_path / "stopped" / "rollouts.parquet").num_rows
    assert 400 <= before < 800
    drawn: list[int] = []
    kept = Screening._draw

    def counted(self: Screening, visits: Sequence[Visit]) -> Iterator[tuple[Visit, list[dict[str, Any]]]]:
        drawn.extend(visit.rollouts for visit in visits)
        return kept(self, visits)

    monkeypatch.setattr(Screening, "_draw", counted)
    resumed = Screening(spec(), tmp_path / "stopped", model=tiny, queries=SUMS).run()
    assert sum(drawn) == resumed["rollouts"] - before, "nothing is drawn twice"
    assert table(tmp_path / "stopped") == table(tmp_path / "straight")
    rollouts = [
        pq.read_table(tmp_path / name / "rollouts.parquet").to_pylist() for name in ("stopped", "straight")
    ]
    assert rollouts[0] == rollouts[1]
    assert {k: v for k, v in resumed.items() if k != "seconds"} == {
        k: v for k, v in straight.items() if k != "seconds"
    }
    drawn.clear()
    monkeypatch.setattr("llm_bridge.models.language_model.load_model", None)
    Screening(spec(), tmp_path / "stopped", queries=SUMS).run()
    assert not drawn, "a finished screening needs no model"


def test_a_half_written_record_is_not_read(tmp_path: Path) -> None:
    first = coins(tmp_path, [0.3] * 9).run()
    path = tmp_path / "rollouts.parquet"
    path.write_bytes(path.read_bytes()[:-100])
    assert coins(tmp_path, [0.3] * 9).run()["queries"] == first["queries"]


def test_a_record_longer_than_what_was_gone_through_again_is_kept(tmp_path: Path) -> None:
    whole = coins(tmp_path, [0.3] * 9)
    whole.run()
    before = pq.read_table(tmp_path / "rollouts.parquet").num_rows
    again = coins(tmp_path, [0.3] * 9)
    again.progress = stop_at(16)
    with pytest.raises(Stop):
        again.run()
    assert pq.read_table(tmp_path / "rollouts.parquet").num_rows == before


def test_the_draws_are_not_the_probes_and_do_not_depend_on_what_else_is_drawn(tiny: LanguageModel) -> None:
    from llm_bridge.probe.survey import PROBE_STREAM, SCREEN_STREAM
    from llm_bridge.rollouts.base_rollouts import BaseRollouts

    def draws(stream: int, parts: list[tuple[int, int]], number: int = 0) -> list[Any]:
        base = BaseRollouts(tiny, max_tokens=3, seed=0, stream=stream)
        return [t for part in parts for t in base.draw([Visit(number, SUMS[0], *part)])[0]]

    whole = draws(SCREEN_STREAM, [(0, 40)])
    base = BaseRollouts(tiny, max_tokens=3, seed=0, stream=SCREEN_STREAM)
    beside = base.draw([Visit(3, SUMS[1], 0, 5), Visit(0, SUMS[0], 8, 32), Visit(0, SUMS[0], 0, 8)])
    assert [len(part) for part in beside] == [5, 32, 8] and beside[2] + beside[1] == whole
    assert whole == draws(SCREEN_STREAM, [(0, 8), (8, 32)])
    assert whole != draws(PROBE_STREAM, [(0, 40)])
    assert whole != draws(SCREEN_STREAM, [(0, 40)], number=1)


def test_prompts_beyond_what_is_kept_are_read_again(
    tiny: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    from llm_bridge.rollouts import base_rollouts

    def draws(kept: int) -> list[Any]:
        monkeypatch.setattr(base_rollouts, "KEPT", kept)
        base = base_rollouts.BaseRollouts(tiny, max_tokens=3, seed=0, stream=5)
        out = [base.draw([Visit(i, SUMS[i], 0, 4)]) for i in (0, 1, 2, 0, 1)]
        assert sum(p.tokens.shape[1] for p in base._prompts.values()) <= max(kept, 4)
        return out

    assert draws(0) == draws(8) == draws(10**6)


def test_hopeless_and_easy_queries_are_dropped_early(tmp_path: Path) -> None:
    """A query that never succeeds is dropped once (1 - low)^-n wins: 4.57 / .1 = 46 rollouts and less than one visit
    more; one that always does, far sooner; those in range get the rest of the budget."""
    made = coins(tmp_path, [0.0] * 6 + [1.0] * 3 + [0.25] * 3, budget=1200, low=0.1, high=0.45).run()
    by = {row["number"]: row for row in made["queries"]}
    assert all(by[i]["verdict"] == "too hard" and by[i]["rollouts"] < 46 + 32 for i in range(6))
    assert all(by[i]["verdict"] == "too easy" and by[i]["rollouts"] <= 24 for i in range(6, 9))
    assert all(by[i]["verdict"] == "in range" for i in range(9, 12))
    assert made["rollouts"] < 1200, "it stops when all is decided"
    assert "3 of 12 queries looked at are in range (0.1 to 0.45)" in made["says"]


def test_queries_without_a_success_wait_for_new_ones(tmp_path: Path) -> None:
    made = coins(tmp_path, [0.0] * 200, budget=800).run()
    assert made["looked_at"] == 100 and {row["rollouts"] for row in made["queries"]} == {8}


def test_queries_beyond_the_plan_are_looked_at_when_the_planned_are_decided(tmp_path: Path) -> None:
    made = coins(tmp_path, [1.0] * 200, budget=800, low=0.1, high=0.45)
    assert made.planned == 50
    assert 50 < made.run()["looked_at"] <= 200


def test_none_found_says_how_many_there_can_be(tmp_path: Path) -> None:
    """All 20 of a set of 20 dropped: of two in range both would be dropped at most .05^2 of the time; at most one is.

    40 of 1,000 without a success in 25 rollouts, at low = .1: (1 - (.05/3)^(1/40)) / (1 - .9^25) = 10.5%, less what is
    gained by drawing without replacement.
    """
    made = coins(tmp_path / "all", [0.0] * 20).run()
    assert made["in_range_at_most"] == 1 and made["too_hard"] == 20
    assert "all of them decided; with 95% confidence at most 1 (0.05) of this set's 20 are" in made["says"]
    assert "queries.jsonl" not in {path.name for path in (tmp_path / "all").iterdir()}
    made = coins(tmp_path / "some", [0.0] * 1000, budget=1000, batch=25, low=0.1).run()
    assert made["looked_at"] == 40
    assert 95 <= made["in_range_at_most"] <= 105
    assert "of this set's 1000 are" in made["says"]
    made = coins(tmp_path / "few", [0.0] * 1000, budget=16, low=0.01).run()
    assert "too few rollouts to say" in made["says"]


def test_the_limit_holds_for_sets_with_queries_in_range(tmp_path: Path) -> None:
    """3 of 30 coins in range: the limit is below 3 in at most 5% of screenings. 40 of them, fixed keys; 9 or more
    failures have probability below 2e-4 under 5%."""
    failures = 0
    for seed in range(40):
        made = coins(tmp_path / str(seed), [0.02] * 27 + [0.12] * 3, budget=160, low=0.1, seed=seed)
        made.seed = seed
        failures += made.run()["in_range_at_most"] < 3
    assert stats.binom(40, 0.05).sf(8) < 2e-4
    assert failures <= 8


def test_queries_survive_the_file(tmp_path: Path) -> None:
    queries = [
        *reasoning_gym_queries("basic_arithmetic", seed=1, size=2, max_terms=2),
        Query(prompt="1+1=", answer="2", verifier="integer", name="two", stop="\n"),
        Query(prompt="Say 5.", answer="5"),
    ]
    path = tmp_path / "q.jsonl"
    path.write_text("".join(map(line_of, queries)))
    assert load_queries(path) == queries


def call(*words: Any):
    return CliRunner().invoke(app, ["screen", *(str(w) for w in words)])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--p0", "0.5"], "--p0 '0.5' is no range; give LOW:HIGH"),
        (["--p0", "0.5:0.2"], "holds no p"),
        (["--p0", "0:1"], "nothing to screen for"),
        (["--p0", "0.1:1.5"], "less than or equal to 1"),
        (["--budget", 4], "batch 8 is more than budget 4; lower --batch or raise --budget"),
        (["--most", 4], "most 4 is not from batch 8 to below budget 2000"),
        (["--error", 0], "greater than 0"),
        (["--queries", "nowhere.jsonl"], "nowhere.jsonl is not a file"),
        (["--verifier", "boxed"], "query '68-29'"),
    ],
)
def test_bad_input_is_one_clear_line(words: list[Any], message: str, tmp_path: Path) -> None:
    if message.startswith("query"):
        words, message = ["--verifier", "oracle"], "query '68-29': verifier 'oracle' is unknown"
    given = words if "--queries" in words else ["--queries", "builtin", *words]
    result = call(*given, "--out", tmp_path / "out")
    assert result.exit_code == 2, result.output
    assert message in " ".join(result.output.split())


def test_the_command_writes_what_overlay_reads(tmp_path: Path) -> None:
    path = tmp_path / "sums.jsonl"
    rows = [{"query": q.prompt, "answer": q.answer, "verifier": "integer", "name": q.name} for q in SUMS[:6]]
    path.write_text("\n".join(map(json.dumps, rows)))
    words = [
        "--queries",
        path,
        "--model",
        "tiny-arithmetic",
        "--max-tokens",
        3,
        "--p0",
        "0.1:0.6",
        "--budget",
        400,
    ]
    made = json.loads(call(*words, "--out", tmp_path / "out", "--json").stdout)
    assert made["in_range"] >= 1 and made["looked_at"] == 6
    again = call(*words, "--out", tmp_path / "out")
    assert again.exit_code == 0 and "in range" in again.output
    probed = CliRunner().invoke(
        app,
        ["probe", "--queries", str(tmp_path / "out" / "queries.jsonl"), "--model", "tiny-arithmetic", "--max-tokens",
         "3", "--probe-rollouts", "200", "--out", str(tmp_path / "probe"), "--json"],
    )  # fmt: skip
    assert probed.exit_code == 0, probed.output
    assert len(json.loads(probed.stdout)["queries"]) == made["in_range"]
    rows[0]["answer"] = "11"
    path.write_text("\n".join(map(json.dumps, rows)))
    result = call(*words, "--out", tmp_path / "out")
    assert result.exit_code == 2 and "holds another run (queries:" in " ".join(result.output.split())
