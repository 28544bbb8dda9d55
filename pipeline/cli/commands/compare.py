"""`bonsai compare`."""

from pathlib import Path
from typing import Annotated

import typer

from bonsai.pipeline.cli.commands.options import (
    AllowUndecidedOption,
    CiDirOption,
    CiOption,
    JsonOption,
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


def compare(
    recipe: RecipeArgument,
    profile: ProfilesOption = None,
    settings: SettingsOption = None,
    store: StoreOption = Path("artifacts"),
    out: OutOption = None,
    at_once: Annotated[
        int | None, typer.Option("--at-once", min=1, help="Branches that grow side by side; default: as many as the cores allow.", metavar="N")
    ] = None,
    tracker: TrackerOption = None,
    allow_undecided: AllowUndecidedOption = False,
    ci: CiOption = False,
    ci_dir: CiDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Compress for several targets or variants, and compare them.

    One that fails leaves the others alone; the results stand side by side in a table and a report. Several values in --set, with commas between
    them, make a variant each; of two such keys every combination.

    Example: bonsai compare resnet-edge --profile local-cpu --profile rtx-4090 --profile t4
             bonsai compare resnet-edge --set prune.criterion=snip,magnitude_l2,bn_gradient
    """
    from bonsai.pipeline.cli.ci import ci_job
    from bonsai.pipeline.cli.progress_lines import show_progress
    from bonsai.pipeline.compare.sweep import variants_of
    from bonsai.pipeline.tables import show_comparison

    show_progress(plain=ci)
    with resumable(), ci_job(ci_folder(ci, ci_dir, store), recipe, as_json=as_json) as report:
        overrides = read_settings(settings)
        for variant in variants_of(overrides):
            variant.load(recipe, profile or [])
        from bonsai.pipeline.compare.comparing import compare as run_comparison  # from here on torch is needed: a mistake was told before
        from bonsai.pipeline.compare.comparing import comparison_folder, require_all

        comparison = run_comparison(recipe, profile or [], overrides, store=store, out=out, at_once=at_once, tracker=tracker, allow_undecided=allow_undecided)
        show_comparison(comparison, comparison_folder(store, comparison.recipe), as_json=as_json)
        report(comparison.outcomes, comparison.cost.sentence, comparison.recipe)
    require_all(comparison, allow_undecided=allow_undecided)
