"""The command line: which commands there are, how their help looks, and how errors end."""

import functools
import inspect
import sys
from collections.abc import Callable
from importlib import metadata
from typing import Annotated, Any, NoReturn

import typer
from rich.markup import escape
from typer.core import TyperGroup

from bonsai.pipeline.cli.commands.characterize import characterize
from bonsai.pipeline.cli.commands.compare import compare
from bonsai.pipeline.cli.commands.device import check, setup
from bonsai.pipeline.cli.commands.explain import explain
from bonsai.pipeline.cli.commands.gc import gc
from bonsai.pipeline.cli.commands.importing import import_config
from bonsai.pipeline.cli.commands.init import init
from bonsai.pipeline.cli.commands.names import list_names, schema
from bonsai.pipeline.cli.commands.packages import lay_out, predict, sign, verify
from bonsai.pipeline.cli.commands.report import report
from bonsai.pipeline.cli.commands.run import run
from bonsai.pipeline.cli.commands.serve import serve
from bonsai.pipeline.cli.commands.show import show
from bonsai.pipeline.cli.commands.stopping import noticing_signals, stop_code, tell
from bonsai.pipeline.cli.endings import drop_output, drop_unwritable_output, message_of, require_streams
from bonsai.profiles.errors import BonsaiError
from bonsai.stages.imports.training_extra import explain_missing

START, RESULTS, MORE = "Start here", "Results", "More"
EXIT_CODES = "Exit codes: 0 ok, 1 failure, 2 input, 3 gate, 4 build, 5 device, 6 verification"
TERMINATED = 143
PIPE_CLOSED = 141
"""Exit code if the program that reads the output has ended, as shells report it for other programs."""


class Screen(TyperGroup):
    """All commands on one screen of 80 x 24, without frames."""

    def format_help(self, ctx: Any, formatter: Any) -> None:
        """Write usage, the commands by panel, and how they end."""
        panels: dict[str, list[str]] = {START: [], RESULTS: [], MORE: []}
        for name in self.list_commands(ctx):
            command: Any = self.commands[name]
            panels[command.rich_help_panel].append(f"  {name:14}{command.get_short_help_str(limit=62)}")
        formatter.write("Usage: bonsai COMMAND ...    (COMMAND --help; --version; --install-completion)\n")
        formatter.write(f"{self.help}\n")
        for panel, lines in panels.items():
            formatter.write("\n".join([panel, *lines, ""]))
        formatter.write(f"{EXIT_CODES}\n")


def show_version(asked: bool) -> None:
    """Print the version and end."""
    if asked:
        typer.echo(f"bonsai {metadata.version('bonsai-compress')}")
        raise typer.Exit


app = typer.Typer(cls=Screen, no_args_is_help=True, rich_markup_mode="rich", pretty_exceptions_enable=False)


@app.callback()
def bonsai(version: Annotated[bool, typer.Option("--version", callback=show_version, is_eager=True, help="Print the version.")] = False) -> None:
    """Prunes a network while it trains, to fit its device, and measures it there."""


def add(function: Callable[..., None], panel: str, name: str | None = None, to: typer.Typer = app) -> None:
    """Add a command; what follows "Example: " in its docstring is shown as it is, below the options."""
    text, _, example = (inspect.getdoc(function) or "").partition("\n\nExample: ")
    lines = "".join(f"\n  {line.strip()}" for line in example.splitlines())
    to.command(name, help=text, epilog=f"Example:{escape(lines)}" if example else None, rich_help_panel=panel)(_ending_well(function))


def _ending_well(function: Callable[..., None]) -> Callable[..., None]:
    """Return a command that ends without a traceback where it is stopped, and without a word where whoever read its output, such as `head`, has gone."""

    @functools.wraps(function)
    def command(*args: Any, **options: Any) -> None:
        try:
            function(*args, **options)
            sys.stdout.flush()
        except typer.Exit:
            raise
        except BaseException as error:
            code = stop_code(error)
            if code is None and isinstance(error, BrokenPipeError):
                code = PIPE_CLOSED
                drop_output()
            if code is None:
                raise
            if code == TERMINATED:
                tell("stopped")
            raise typer.Exit(code) from None

    return command


device = typer.Typer(no_args_is_help=True, rich_markup_mode="rich", help="Prepare a device that is another machine.")
add(setup, MORE, to=device)
add(check, MORE, to=device)

add(init, START)
add(run, START)
add(compare, START)
add(verify, RESULTS)
add(predict, RESULTS)
add(sign, RESULTS)
add(show, RESULTS)
add(report, RESULTS)
add(explain, RESULTS)
add(lay_out, RESULTS, "layout")
add(list_names, MORE, "list")
add(characterize, MORE)
app.add_typer(device, name="device", rich_help_panel=MORE)
add(gc, MORE)
add(import_config, MORE, "import")
add(schema, MORE)
add(serve, MORE)


def main() -> NoReturn:
    """Run the command line; every error of Bonsai, of the file system and for lack of memory ends in its message and exit code."""
    try:
        require_streams()
        with noticing_signals():
            app(prog_name="bonsai")
    except BonsaiError as error:
        tell(f"error: {error}")
        sys.exit(error.exit_code)
    except ModuleNotFoundError as error:
        told = explain_missing(error)
        if told is None:
            raise
        tell(f"error: {told}")
        sys.exit(told.exit_code)
    except Exception as error:
        message = message_of(error)
        if message is None:
            raise
        drop_unwritable_output()
        tell(f"error: {message}")
        sys.exit(1)
    sys.exit(0)


if __name__ == "__main__":
    main()
