"""`bonsai characterize`."""

from pathlib import Path
from typing import Annotated

import typer

from bonsai.pipeline.cli.commands.completion import complete_profiles
from bonsai.pipeline.cli.commands.options import JsonOption, RecipeArgument, SettingsOption, StoreOption, read_settings


def characterize(
    recipe: RecipeArgument,
    profile: Annotated[
        str | None,
        typer.Option(
            "--profile",
            help="Target, by name or file; its device is here or has an address; default: RECIPE's.",
            metavar="NAME|FILE",
            autocompletion=complete_profiles,
        ),
    ] = None,
    settings: SettingsOption = None,
    store: StoreOption = Path("artifacts"),
    out: Annotated[Path, typer.Option("--out", help="Folder of the file of tables.", metavar="DIR")] = Path("tables"),
    name: Annotated[str | None, typer.Option("--name", help="Name of the file of tables; default: RECIPE--PROFILE.", metavar="NAME")] = None,
    by: Annotated[str, typer.Option("--by", help="Who measures; written into the file.", metavar="WHO")] = "",
    detect: Annotated[bool, typer.Option("--steps/--no-steps", help="Sweep for the channel steps of the device's kernels.")] = True,
    as_json: JsonOption = False,
) -> None:
    """Measure latency tables of this machine, or of a device.

    They are those of RECIPE's network, for runs elsewhere to fit this machine. One file has the tables of all precisions, where they are from, and a checksum.

    Example: bonsai characterize resnet-edge --name resnet-edge--kitchen-pi --by "Ada Lovelace"
             and elsewhere:
             bonsai run resnet-edge --profile cortex-a76 --table tables/resnet-edge--kitchen-pi.csv
    """
    from bonsai.pipeline.cli.progress_lines import show_progress
    from bonsai.pipeline.run.loading import load
    from bonsai.pipeline.tables import show_tables

    show_progress()
    overrides = read_settings(settings)
    load(recipe, profile, overrides)
    from bonsai.pipeline.run.characterize import characterize_device  # from here on torch is needed: a mistake was told before

    show_tables(characterize_device(recipe, profile, overrides, store=store, out=out, name=name, by=by, detect=detect), as_json=as_json)
