"""`bonsai run`."""

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from bonsai.pipeline.cli.commands.completion import complete_tables
from bonsai.pipeline.cli.commands.options import (
    AllowUndecidedOption,
    CiDirOption,
    CiOption,
    JsonOption,
    Layout,
    OutOption,
    ProfilesOption,
    RecipeArgument,
    SettingsOption,
    StoreOption,
    TrackerOption,
    ci_folder,
    read_settings,
)
from bonsai.pipeline.cli.commands.stopping import resumable


def run(
    recipe: RecipeArgument,
    profile: ProfilesOption = None,
    settings: SettingsOption = None,
    tables: Annotated[
        list[str] | None,
        typer.Option("--table", help="Latency tables measured on such a device, by name or file.", metavar="NAME|FILE", autocompletion=complete_tables),
    ] = None,
    store: StoreOption = Path("artifacts"),
    out: OutOption = None,
    layout: Annotated[
        Layout | None, typer.Option("--layout", help="Lay each package out too, in a folder of this name beside them.", metavar="triton|ort")
    ] = None,
    tracker: TrackerOption = None,
    against: Annotated[
        list[Path] | None,
        typer.Option("--against", help="Compare with an earlier package, by the profile's `against`; repeat it for several profiles.", metavar="PACKAGE"),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Validate everything and print the plan.")] = False,
    remeasure: Annotated[bool, typer.Option("--remeasure", help="Time finished engines again, and judge them anew; nothing is trained.")] = False,
    allow_undecided: AllowUndecidedOption = False,
    ci: CiOption = False,
    ci_dir: CiDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Train, prune, quantise, build, measure, package.

    RECIPE's network is compressed for one or more targets, from training to a measured engine. A run that was stopped goes on from its last
    finished epoch.

    Example: bonsai run resnet-edge
             bonsai run resnet-edge --profile local-cpu --set profile.budget.latency=0.3
             bonsai run resnet-edge --against releases/resnet-edge--local-cpu --ci
             bonsai run resnet-edge --remeasure
    """
    from bonsai.pipeline.cli.ci import ci_job
    from bonsai.pipeline.cli.progress_lines import show_progress
    from bonsai.pipeline.compare.comparison import outcome_of
    from bonsai.pipeline.run.conduct import require_gates
    from bonsai.pipeline.run.loading import load
    from bonsai.pipeline.run.publish import LAYOUTS, lay_out
    from bonsai.pipeline.run.repeating import find_finished
    from bonsai.pipeline.tables import show_packages, show_plan
    from bonsai.stages.store.store import Store
    from bonsai.stages.training.tracking import VARIABLE

    show_progress(plain=ci)
    finished = out or store / "packages"
    with resumable(), ci_job(None if dry_run else ci_folder(ci, ci_dir, store), recipe, as_json=as_json) as report:
        overrides: dict[str, Any] = dict(read_settings(settings))
        if tables:
            overrides["profile.tables"] = tables
        loaded, targets = load(recipe, profile, overrides)
        if layout is not None:
            for target in targets:
                LAYOUTS[layout.value].require(target.target)
        plain = not (dry_run or remeasure or against or tracker or os.environ.get(VARIABLE))
        packages = find_finished(loaded, targets, store=store, out=out) if plain else None
        if packages is None:
            from bonsai.pipeline.run.flow import compress  # from here on torch is needed, which costs seconds: a mistake was told before
            from bonsai.pipeline.run.plan import plan_run, require_finished

            if dry_run:
                show_plan(plan_run(loaded, targets, Store(store), against or ()), as_json=as_json)
                return
            if remeasure:
                require_finished(loaded, targets, Store(store))
            packages = compress(recipe, profile, overrides, store=store, out=out, tracker=tracker, against=against or (), remeasure=remeasure)
        models = [lay_out(layout.value, finished / package.name, finished / layout.value) for package in packages] if layout is not None else []
        show_packages(packages, finished, as_json=as_json)
        for model in [] if as_json else models:
            typer.echo(model)
        outcomes = [outcome_of(target, package, finished, allow_undecided=allow_undecided) for target, package in zip(targets, packages, strict=True)]
        report(outcomes, "", loaded.name)
    require_gates({package.name: package.gates for package in packages}, allow_undecided=allow_undecided)
