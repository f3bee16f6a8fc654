"""The form of every command: options, and a function of what was given for them, whose docstring is its help."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from typer.core import TyperCommand

from experiments.cli.console import reporting
from experiments.cli.names import filled
from theory.extras import require


@dataclass(frozen=True)
class Option:
    """One option, declared once for all commands that take it.

    Arguments:
        name: what it is called in the code; on the command line `--name` with dashes, unless `flag` says otherwise.
        kind: its type, as typer reads it.
        help: a sentence; {rules} and the like are filled in from the registries of `experiments.cli.names`.
        default: the value where it is not given; `...` where it must be.
        shown: the default in words, where the value does not say it.
        panel: the heading of help under which it stands.
        field: the field of a `RunSpec` that it fills, dotted ("probe.rollouts"); "" where it fills none.
        positional: given by its place, without a flag.
    """

    name: str
    kind: Any
    help: str
    default: Any = None
    shown: str = ""
    panel: str = ""
    field: str = ""
    flag: str = ""
    positional: bool = False

    def parameter(self) -> inspect.Parameter:
        """As a parameter of a function that typer reads."""
        about: dict[str, Any] = {
            "help": self.help,
            "rich_help_panel": self.panel or None,
            "show_default": self.shown or not any(self.default is x for x in (None, False, ...)),
        }
        if self.positional:
            read = typer.Argument(**about)
        else:
            flag = self.flag or f"--{self.name.replace('_', '-')}"
            read = typer.Option(flag, **about)
        return inspect.Parameter(
            self.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=inspect.Parameter.empty if self.default is ... else self.default,
            annotation=Annotated[self.kind, read],
        )


JSON = Option(
    "as_json", bool, "Print one JSON object to standard output, and nothing else there.", False,
    panel="Output", flag="--json",
)  # fmt: skip


class Given(Mapping[str, Any]):
    """What was given for a command's options, by their names; read only: `given.rounds`, `given["rounds"]`."""

    def __init__(self, values: Mapping[str, Any]) -> None:
        self._values = dict(values)

    def __getattr__(self, name: str) -> Any:
        try:
            return self.__dict__["_values"][name]
        except KeyError:
            raise AttributeError(f"the command has no option {name!r}") from None

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def some(self, *names: str) -> dict[str, Any]:
        """Those of the names that were given a value."""
        return {name: self[name] for name in names if self[name] is not None}


@dataclass(frozen=True)
class Command:
    """A command: `act` is called with what was given; its errors and warnings are reported as for every command.

    Arguments:
        options: in the order of its help; `--json` is added.
        text: its help, where the docstring of `act` is not it; the first paragraph is the line in the list.
        panel: the heading under which the list of commands has it.
        needs: the extra of `theory.extras.EXTRAS` that has to be installed.
    """

    name: str
    act: Callable[[Given], None]
    options: tuple[Option, ...] = ()
    text: str = ""
    panel: str = ""
    needs: str = ""

    @property
    def help(self) -> str:
        """A line per paragraph: typer would end lines where the source does."""
        text = inspect.cleandoc(self.text or self.act.__doc__ or "")
        return "\n\n".join(" ".join(paragraph.split()) for paragraph in text.split("\n\n"))

    def callback(self) -> Callable[..., None]:
        """A function with the options as its parameters."""

        def call(**values: Any) -> None:
            with reporting(values[JSON.name]):
                if self.needs:
                    require(self.needs)
                self.act(Given(values))

        parameters = [option.parameter() for option in (*self.options, JSON)]
        call.__signature__ = inspect.Signature(parameters)  # pyright: ignore[reportFunctionMemberAccess]
        call.__annotations__ = {p.name: p.annotation for p in parameters}
        return call

    def add_to(self, app: typer.Typer) -> None:
        app.command(self.name, help=self.help, cls=Described, rich_help_panel=self.panel or None)(
            self.callback()
        )


def group(name: str, help: str, *commands: Command, epilog: str | None = None) -> typer.Typer:
    """Commands under one name: `onearm NAME COMMAND`."""
    app = typer.Typer(name=name, no_args_is_help=True, help=help, epilog=epilog)
    for command in commands:
        command.add_to(app)
    return app


class Described(TyperCommand):
    """Fills in the names of registries when its help is read, and not when the program starts."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        for parameter in self.params:
            parameter.help = filled(getattr(parameter, "help", None) or "")  # pyright: ignore[reportAttributeAccessIssue]
        super().format_help(ctx, formatter)
