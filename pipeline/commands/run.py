"""`bonsai run`."""

from pathlib import Path
from typing import Annotated, Any

import typer

from pipeline.commands.options import JsonOption, Layout, OutOption, ProfilesOption, RecipeArgument, SettingsOption, StoreOption, read_settings


def run(
    recipe: RecipeArgument,
    profile: ProfilesOption = None,
    settings: SettingsOption = None,
    tables: Annotated[
        list[Path] | None, typer.Option("--table", help="Latency table measured on the device; repeat it for each precision.", metavar="FILE")
    ] = None,
    store: StoreOption = Path("artifacts"),
    out: OutOption = None,
    layout: Annotated[
        Layout | None, typer.Option("--layout", help="Lay each package out too, in a folder of this name beside them.", metavar="triton|ort")
    ] = None,
    tracker: Annotated[
        str | None, typer.Option("--tracker", help="Send figures there too; default: what BONSAI_TRACKER says.", metavar="tensorboard:DIR|mlflow:URI")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Validate everything and print the plan.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Compress RECIPE's network for one or more targets, from training to a measured engine.

    Example: bonsai run resnet-edge --profile local-cpu --set profile.budget.latency=0.3
    """
    overrides: dict[str, Any] = dict(read_settings(settings))
    if tables:
        overrides["profile.tables"] = [str(table) for table in tables]
    from pipeline.console import show_packages, show_plan, show_progress
    from pipeline.flow import compress, load
    from pipeline.plan import plan_run
    from pipeline.publish import LAYOUTS, lay_out
    from stages.errors import GateMissed
    from stages.store import Store

    show_progress()
    if layout is not None:
        for target in load(recipe, profile, overrides)[1]:
            LAYOUTS[layout.value].require(target.target)
    if dry_run:
        show_plan(plan_run(*load(recipe, profile, overrides), Store(store)), as_json=as_json)
        return
    try:
        packages = compress(recipe, profile, overrides, store=store, out=out, tracker=tracker)
    except KeyboardInterrupt:
        typer.echo("stopped; the same command goes on from the last finished epoch", err=True)
        raise typer.Exit(130) from None
    finished = out or store / "packages"
    models = [lay_out(layout.value, finished / package.name, finished / layout.value) for package in packages] if layout is not None else []
    show_packages(packages, finished, as_json=as_json)
    for model in [] if as_json else models:
        typer.echo(model)
    missed = [f"{package.name}: {gate.sentence}" for package in packages for gate in package.gates if not gate.passed]
    if missed:
        raise GateMissed("; ".join(missed))
