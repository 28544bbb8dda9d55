"""`bonsai report`."""

from pathlib import Path
from typing import Annotated

import typer


def report(
    packages: Annotated[list[Path], typer.Argument(help="Folders of packages.", metavar="PACKAGE...")],
    out: Annotated[Path, typer.Option("--out", help="Folder of the report.", metavar="DIR")] = Path("report"),
) -> None:
    """Write a report over packages: HTML and Markdown.

    Example: bonsai report artifacts/packages/resnet-edge--local-cpu artifacts/packages/resnet-edge--t4 --out report
    """
    from bonsai.profiles.errors import ConfigError, describe
    from bonsai.stages.delivery.contents import REPORTS, read_intact
    from bonsai.stages.delivery.sums import SUMS
    from bonsai.stages.reporting.writing import write_reports
    from bonsai.stages.store.manifest import MANIFEST

    for package in packages:
        missing = [name for name in (MANIFEST, SUMS) if not (package / name).is_file()]
        if missing:
            problem, fix = f"{package}: no package, for it has no {missing[0]}", "give the folders that `bonsai run` names at its end"
            raise ConfigError(describe(problem, given=package, allowed="folders of packages", fix=fix))
        if out.resolve().is_relative_to(package.resolve()):
            raise ConfigError(
                describe("--out: lies in a package, which is sealed", given=out, allowed="a folder outside the packages", fix="choose another --out")
            )
    manifests = [read_intact(package) for package in packages]
    title = manifests[0].name if len(manifests) == 1 else ", ".join(manifest.name for manifest in manifests)
    if len(manifests) > 1 and len(recipes := {manifest.recipe["name"] for manifest in manifests}) == 1:
        title = f"{recipes.pop()} on {', '.join(manifest.profile.name for manifest in manifests)}"
    write_reports(out, manifests, title=title)
    for name in REPORTS:
        typer.echo(out / name)
