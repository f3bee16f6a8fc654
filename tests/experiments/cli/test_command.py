"""The form that every command has: its options, its help, and names out of the registries."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator

import pytest
import typer
from typer.testing import CliRunner

from experiments.cli import names
from experiments.cli.app import COMMANDS, app
from experiments.cli.command import Command, Given, Option, group
from experiments.cli.names import braced, filled
from theory.refusal import Refusal


def commands() -> Iterator[tuple[str, ...]]:
    """Every command as it is typed, those of groups too (of `law`, made for each law, one)."""
    for row in COMMANDS:
        if isinstance(row, Command):
            yield (row.name,)
        else:
            assert isinstance(row.info.name, str)
            inner = [c.name for c in row.registered_commands] or ["birth-chain"]
            yield from ((row.info.name, str(name)) for name in inner)


def call(app: typer.Typer, *words: str):
    return CliRunner().invoke(app, words, env={"COLUMNS": "200", "TERMINAL_WIDTH": "200"})


@pytest.mark.parametrize("words", list(commands()), ids=" ".join)
def test_every_command_helps_in_the_same_form(words: tuple[str, ...]) -> None:
    """A text, `--json`, every option explained (but a law's parameters, which the law names), no placeholder."""
    result = call(app, *words, "--help")
    assert result.exit_code == 0, result.output
    assert "--json" in result.output and "Print one JSON object" in result.output
    for registry in names.REGISTRIES:
        assert f"{{{registry}}}" not in result.output, "a registry that is not filled in"
    if words[0] != "law":
        for line in result.output.splitlines():
            if found := re.match(r"│ (?:\*  )? *(--[a-z0-9-]+) +<\w+> *(.*?) *│", line):
                assert found[2], f"{found[1]} is not explained"


def test_help_names_what_registries_hold() -> None:
    from bandit_sim.engines.registry import ENGINES
    from bandit_sim.rounds.observe import OBSERVABLES
    from experiments.simulation.simulation import SimulationSpec
    from llm_bridge.models.registry import MODELS
    from llm_bridge.rewards.verifiers import VERIFIERS
    from theory.pay import PAYS
    from theory.rules.dialects import PRESETS

    assert filled("{models}").split(", ") == list(MODELS)
    assert filled("{profiles}") == "two_class, power_law or log_normal"
    for name in {*OBSERVABLES, "class_mass"} - {"success"}:
        assert f"{name} (" in filled("{observables}")
    assert "success (" not in filled("{observables}"), "it is always recorded"
    for engine in ENGINES:
        assert f"{engine} (" in filled("{engines}")
        assert SimulationSpec(engine=engine).engine == engine
    with pytest.raises(
        Refusal, match=f"engine: 'steam' is no engine; choose auto or one of {', '.join(ENGINES)}"
    ):
        SimulationSpec(engine="steam")

    rules = filled("{rules}")
    listed = re.sub(
        r"([a-z0-9.-]+)\{([^}]*)\}", lambda m: ", ".join(m[1] + x for x in m[2].split(", ")), rules
    )
    assert sorted(listed.split(", ")) == sorted(PRESETS)
    for kind in PAYS:
        assert f"{kind} (" in filled("{pays}")
    judges = {name for name, row in VERIFIERS.items() if not row.entry}
    assert set(re.split(", | or ", filled("{verifiers}"))) == judges


def test_braces_that_are_no_registry_stay() -> None:
    assert filled('{"query": 1} {x} \\boxed{a}') == '{"query": 1} {x} \\boxed{a}'
    assert braced(["sgd", "trl-a", "b", "trl-b", "x-y-1", "x-y-2"]) == "sgd, trl-{a, b}, b, x-y-{1, 2}"


def test_the_front_page_loads_neither_torch_nor_jax() -> None:
    code = (
        "import sys; from experiments.cli.app import main; sys.argv = ['onearm', '--help']\n"
        "try: main()\nexcept SystemExit as left: assert not left.code\n"
        "print([m for m in ('torch', 'jax', 'numpy', 'pydantic', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    listed = [line.split()[1] for line in done.stdout.splitlines() if re.match(r"│ [a-z]+  ", line)]
    assert listed == [words.name if isinstance(words, Command) else words.info.name for words in COMMANDS]


def test_the_registries_load_neither_torch_nor_jax() -> None:
    code = (
        "import sys; from experiments.cli.names import REGISTRIES\n"
        "assert all(said() for said in REGISTRIES.values())\n"
        "print([m for m in ('torch', 'jax', 'transformers') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_a_command_is_called_with_what_was_given() -> None:
    seen: list[Given] = []

    def act(given: Given) -> None:
        """Count something."""
        seen.append(given)

    options = (
        Option("folders", list[str], "Where.", ..., positional=True),
        Option("look_every", int, "How often.", 5),
        Option("at", list[int] | None, "When."),
        Option("full", bool, "All.", False, flag="--full"),
    )
    own = group("own", "A group.", Command("count", act, options), Command("other", act))
    assert call(own, "count", "a", "b", "--at", "3", "--at", "4", "--full").exit_code == 0
    given = seen[0]
    assert dict(given) == {
        "folders": ["a", "b"], "look_every": 5, "at": [3, 4], "full": True, "as_json": False,
    }  # fmt: skip
    assert given.look_every == 5 and given.some("at", "full") == {"at": [3, 4], "full": True}
    with pytest.raises(AttributeError, match="no option 'looks'"):
        _ = given.looks
    assert call(own, "count").exit_code == 2, "FOLDERS is required"
    assert "Count something." in call(own, "count", "--help").output


def test_errors_of_every_command_are_reported_alike() -> None:
    def refuse(given: Given) -> None:
        raise Refusal("a [bold]fix[/]")

    def break_down(given: Given) -> None:
        raise ZeroDivisionError("ours")

    own = group(
        "own", "A group.", Command("refuse", refuse, text="x"), Command("break", break_down, text="x")
    )
    refused = call(own, "refuse", "--json")
    assert (refused.exit_code, json.loads(refused.stdout)) == (2, {"error": "a [bold]fix[/]"})
    broken = call(own, "break")
    assert broken.exit_code == 1 and isinstance(broken.exception, ZeroDivisionError)
