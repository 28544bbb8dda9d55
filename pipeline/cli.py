"""The command line: `bonsai run`, `characterize`, `layout`, `list`, `schema`, `serve`, `verify`.

Everything heavy is imported by the command that needs it, so that help and typing errors cost nothing.
"""

import json
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from profiles.errors import BonsaiError, ConfigError, describe

EXIT_CODES = """Exit codes: 0 ok, 1 unexpected failure, 2 bad configuration, 3 gate missed, 4 build failed, 5 device unavailable, 6 verification failed."""

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Bonsai prunes a network while it trains, to fit the device it will run on, and measures the engine there.",
    epilog=EXIT_CODES,
)

StoreOption = Annotated[Path, typer.Option("--store", help="Folder of the artifacts.", metavar="DIR")]


class Listing(StrEnum):
    """What `bonsai list` can list."""

    recipes = "recipes"
    profiles = "profiles"
    models = "models"
    datasets = "datasets"
    backends = "backends"


class Layout(StrEnum):
    """How `bonsai run --layout` and `bonsai layout` can lay out a package."""

    triton = "triton"


class Described(StrEnum):
    """What `bonsai schema` can describe."""

    profile = "profile"
    recipe = "recipe"


@app.command()
def run(
    recipe: Annotated[str, typer.Argument(help="Name of a shipped recipe, or path of a recipe file.", metavar="RECIPE")],
    profile: Annotated[list[str] | None, typer.Option("--profile", help="Target, by name or file; repeat it for several.", metavar="NAME|FILE")] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", help="Change a recipe key, or `profile.` a profile key.", metavar="A.B=C")] = None,
    tables: Annotated[
        list[Path] | None, typer.Option("--table", help="Latency table measured on the device; repeat it for each precision.", metavar="FILE")
    ] = None,
    store: StoreOption = Path("artifacts"),
    out: Annotated[Path | None, typer.Option("--out", help="Folder of the packages; default: STORE/packages.", metavar="DIR")] = None,
    layout: Annotated[
        Layout | None, typer.Option("--layout", help="Lay each package out for a server too, in a folder of this name beside them.", metavar="triton")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Validate everything and print the plan.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")] = False,
) -> None:
    """Compress RECIPE's network for one or more targets, from training to a measured engine.

    Example: bonsai run resnet-edge --profile local-cpu --set profile.budget.latency=0.3
    """
    overrides: dict[str, Any] = dict(_overrides(settings or []))
    if tables:
        overrides["profile.tables"] = [str(table) for table in tables]
    from pipeline.console import show_packages, show_plan, show_progress
    from pipeline.flow import compress, load
    from pipeline.plan import plan_run
    from pipeline.publish import LAYOUTS
    from stages.delivery.triton import require_servable
    from stages.errors import GateMissed
    from stages.store import Store

    show_progress()
    if layout is not None:
        for target in load(recipe, profile, overrides)[1]:
            require_servable(target.target.runtime)
    if dry_run:
        show_plan(plan_run(*load(recipe, profile, overrides), Store(store)), as_json=as_json)
        return
    try:
        packages = compress(recipe, profile, overrides, store=store, out=out)
    except KeyboardInterrupt:
        typer.echo("stopped; the same command goes on from the last finished epoch", err=True)
        raise typer.Exit(130) from None
    finished = out or store / "packages"
    models = [LAYOUTS[layout.value](finished / package.name, finished / layout.value) for package in packages] if layout is not None else []
    show_packages(packages, finished, as_json=as_json)
    for model in [] if as_json else models:
        typer.echo(model)
    missed = [f"{package.name}: {gate.sentence}" for package in packages for gate in package.gates if not gate.passed]
    if missed:
        raise GateMissed("; ".join(missed))


@app.command()
def characterize(
    recipe: Annotated[str, typer.Argument(help="Whose network: a shipped recipe, or the path of a recipe file.", metavar="RECIPE")],
    profile: Annotated[str | None, typer.Option("--profile", help="Target, by name or file; its device is this machine.", metavar="NAME|FILE")] = None,
    settings: Annotated[list[str] | None, typer.Option("--set", help="Change a recipe key, or `profile.` a profile key.", metavar="A.B=C")] = None,
    store: StoreOption = Path("artifacts"),
    out: Annotated[Path, typer.Option("--out", help="Folder of the tables.", metavar="DIR")] = Path("tables"),
    detect: Annotated[bool, typer.Option("--steps/--no-steps", help="Sweep for the channel steps of the device's kernels.")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="Print the result as JSON on standard output.")] = False,
) -> None:
    """Measure latency tables of RECIPE's network on this machine, for runs elsewhere to fit it.

    Example: bonsai characterize resnet-edge, and elsewhere: bonsai run resnet-edge --profile my-device.yaml --table tables/FILE.csv
    """
    from pipeline.characterize import characterize_device
    from pipeline.console import show_progress, show_tables

    show_progress()
    show_tables(characterize_device(recipe, profile, _overrides(settings or []), store=store, out=out, detect=detect), as_json=as_json)


@app.command("list")
def list_names(what: Annotated[Listing, typer.Argument(help="What to list.")]) -> None:
    """List what can be named in a recipe or on the command line.

    Example: bonsai list profiles
    """
    from pipeline.listing import describe_all

    for name, description in describe_all(what.value):
        typer.echo(f"{name:24}{description}")


@app.command()
def schema(what: Annotated[Described, typer.Argument(help="Kind of file.")]) -> None:
    """Print the JSON schema of profile or recipe files, for editors that check and complete YAML.

    Example: bonsai schema profile > profile.schema.json, and in a profile: # yaml-language-server: $schema=profile.schema.json
    """
    from pipeline.json_schema import schema_of

    typer.echo(json.dumps(schema_of(what.value), indent=2))


@app.command()
def serve(store: StoreOption = Path("artifacts")) -> None:
    """Serve a Prefect deployment per shipped recipe, with a local server if none answers.

    Example: bonsai serve, then in another shell: prefect deployment run compress/resnet-edge --watch
    """
    from pipeline.serve import serve as serve_deployments

    serve_deployments(store)


@app.command()
def verify(
    package: Annotated[Path, typer.Argument(help="Folder of a package.", metavar="PACKAGE")],
    require_run: Annotated[bool, typer.Option("--require-run", help="Fail with code 5 where the engine's device is not here, so that it cannot run.")] = False,
) -> None:
    """Check a package on this machine: files, machine, runtime, and the engine against its golden results.

    Example: bonsai verify artifacts/packages/resnet-edge--local-cpu
    """
    from stages.delivery.verification import verify_package

    for line in verify_package(package, require_run=require_run):
        typer.echo(line)


@app.command("layout")
def lay_out(
    layout: Annotated[Layout, typer.Argument(help="For which server.")],
    packages: Annotated[list[Path], typer.Argument(help="Folders of packages.", metavar="PACKAGE")],
    out: Annotated[Path, typer.Option("--out", help="The model repository.", metavar="DIR")] = Path("models"),
) -> None:
    """Lay finished packages out for a server: models of a Triton model repository, without running anything again.

    Example: bonsai layout triton artifacts/packages/resnet-edge--local-cpu, then: tritonserver --model-repository models
    """
    from pipeline.publish import LAYOUTS

    for package in packages:
        typer.echo(LAYOUTS[layout.value](package, out))


def main() -> NoReturn:
    """Run the command line; every error of Bonsai ends in its message and exit code."""
    try:
        app(standalone_mode=True)
    except BonsaiError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    sys.exit(0)


def _overrides(settings: list[str]) -> dict[str, str]:
    overrides: dict[str, str] = {}
    for text in settings:
        key, separator, value = text.partition("=")
        if not separator or not key:
            raise ConfigError(describe("--set needs a key and a value", given=text, allowed="A.B=C", fix="for example --set quantize.epochs=2"))
        if key in overrides:
            raise ConfigError(describe(f"--set {key}: given twice", given=f"{overrides[key]}, then {value}", allowed="each key once", fix="drop one of them"))
        overrides[key] = value
    return overrides


if __name__ == "__main__":
    main()
