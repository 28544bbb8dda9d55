"""The command line: which commands there are, and how errors end."""

import sys
from typing import NoReturn

import typer

from pipeline.commands.characterize import characterize
from pipeline.commands.compare import compare
from pipeline.commands.names import list_names, schema
from pipeline.commands.packages import lay_out, verify
from pipeline.commands.report import report
from pipeline.commands.run import run
from pipeline.commands.serve import serve
from profiles.errors import BonsaiError

EXIT_CODES = """Exit codes: 0 ok, 1 unexpected failure, 2 bad configuration, 3 gate missed, 4 build failed, 5 device unavailable, 6 verification failed."""

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Bonsai prunes a network while it trains, to fit the device it will run on, and measures the engine there.",
    epilog=EXIT_CODES,
)
app.command()(run)
app.command()(compare)
app.command()(characterize)
app.command("list")(list_names)
app.command()(schema)
app.command()(serve)
app.command()(report)
app.command()(verify)
app.command("layout")(lay_out)


def main() -> NoReturn:
    """Run the command line; every error of Bonsai ends in its message and exit code."""
    try:
        app(standalone_mode=True)
    except BonsaiError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    sys.exit(0)


if __name__ == "__main__":
    main()
