"""The queries that a command's options name."""

from __future__ import annotations

from typing import TYPE_CHECKING

from theory.refusal import Refusal

if TYPE_CHECKING:
    from experiments.cli.command import Given
    from llm_bridge.queries.query import Query


def queries_of(given: Given) -> list[Query]:
    """The queries asked, held-out ones among them; a verifier that is given takes the place of each query's own."""
    from llm_bridge.queries.builtin import DEFAULT
    from llm_bridge.queries.query import Query
    from llm_bridge.queries.sources import parse_source

    text, answer, verifier = given.query, given.answer, given.verifier
    if given.stop is not None and text is None:
        raise Refusal("--stop is of --query; with --queries, give each row a field stop")
    if given.queries is not None:
        if text is not None or answer is not None:
            raise Refusal("--queries and --query/--answer exclude each other; give one of them")
        return parse_source(
            given.queries, seed=given.seed, size=given.size, split=given.split, verifier=verifier
        )
    if given.some("size", "split"):
        raise Refusal("--size and --split are of --queries; give it, or leave them out")
    if text is None and answer is None:
        return [DEFAULT if verifier is None else DEFAULT.judged_by(verifier)]
    if text is None or answer is None:
        raise Refusal("--query and --answer belong together; give both")
    named = given.some("verifier", "stop")
    if given.stop == r"\n":
        named["stop"] = "\n"
    return [Query(prompt=text, answer=answer, **named)]


def parted(given: Given, asked: list[Query]) -> tuple[list[Query], list[Query]]:
    """The queries of `queries_of` to train on, and those held out.

    Errors: Refusal for an option of a run of several queries in another run, or for more held out than there are.
    """
    if given.together and given.queries is None:
        raise Refusal(
            "--together trains the queries of --queries in one run; give --queries FILE, or leave it out"
        )
    apart = given.some("batch", "held_out", "look_every", "look_rollouts")
    if apart and not given.together:
        flag = _flag(next(iter(apart)))
        raise Refusal(
            f"{flag} is of one run of several queries; give --together (with --queries), or leave it out"
        )
    if given.held_out is None:
        if looks := given.some("look_every", "look_rollouts"):
            raise Refusal(f"{_flag(next(iter(looks)))} is of --held-out; give it, or leave both out")
        return asked, []
    if not given.held_out.isdecimal():
        from llm_bridge.queries.sources import parse_source

        return asked, parse_source(given.held_out, seed=given.seed, verifier=given.verifier)
    last = int(given.held_out)
    if not 1 <= last < len(asked):
        raise Refusal(f"--held-out {last} of {len(asked)} queries; give 1 to {len(asked) - 1}")
    return asked[:-last], asked[-last:]


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
