"""`bonsai explain`."""

from pathlib import Path
from typing import Annotated

import typer

from bonsai.pipeline.cli.commands.completion import complete_profiles
from bonsai.pipeline.cli.commands.options import JsonOption, StoreOption


def explain(
    package: Annotated[Path, typer.Argument(help="Folder of a package.", metavar="PACKAGE")],
    store: StoreOption = Path("artifacts"),
    profile: Annotated[
        str | None,
        typer.Option("--profile", help="Do it on the device of this profile, which has an address.", metavar="NAME|FILE", autocompletion=complete_profiles),
    ] = None,
    torch: Annotated[bool, typer.Option("--torch", help="Compare the network in torch too: imports the class that the package's recipe names.")] = False,
    out: Annotated[Path | None, typer.Option("--out", help="Write a page with a table and a figure there: report.html and report.md.", metavar="DIR")] = None,
    as_json: JsonOption = False,
) -> None:
    """Find the layer that is slow, or that loses accuracy.

    Layer by layer: its time in the dense reference, in float and in the engine; the error that rounding adds and that the engine adds, given the same
    input; and what to do about a layer that stands out. The package's golden inputs are run. The dense reference's times need the store that the package
    was made in; --torch needs the extra `train`.

    Example: bonsai explain artifacts/packages/resnet-edge--local-cpu
             bonsai explain artifacts/packages/resnet-edge--local-cpu --out explained
    """
    from bonsai.pipeline.cli.progress_lines import show_progress
    from bonsai.pipeline.tables import show_explanation
    from bonsai.profiles.errors import ConfigError, describe
    from bonsai.profiles.loader import load_remote
    from bonsai.stages.delivery.contents import REPORTS
    from bonsai.stages.explanation.explaining import explain as explain_package
    from bonsai.stages.reporting.explanation import write_explanation

    if out is not None and out.resolve().is_relative_to(package.resolve()):
        raise ConfigError(describe("--out: lies in a package, which is sealed", given=out, allowed="a folder outside the package", fix="choose another --out"))
    show_progress()
    simulated = None
    if torch:
        from bonsai.pipeline.run.simulated_tensors import simulated_tensors

        simulated = simulated_tensors(package)
    there = load_remote(profile).target if profile is not None else None
    explanation = explain_package(package, store, simulated, there)
    show_explanation(explanation, as_json=as_json)
    if out is not None:
        write_explanation(out, explanation)
        if not as_json:
            typer.echo(out / REPORTS[0])
