"""`bonsai verify`, `bonsai predict`, `bonsai sign` and `bonsai layout`: what is done with finished packages."""

from pathlib import Path
from typing import Annotated

import typer

from bonsai.pipeline.cli.commands.completion import complete_profiles
from bonsai.pipeline.cli.commands.options import AllowUndecidedOption, JsonOption, Layout, StoreOption


def verify(
    package: Annotated[Path, typer.Argument(help="Folder of a package.", metavar="PACKAGE")],
    require_run: Annotated[bool, typer.Option("--require-run", help="Fail with code 5 where the engine's device is not here, so that it cannot run.")] = False,
    time: Annotated[bool, typer.Option("--time", help="Time the engine too, in several processes, and judge its budget.")] = False,
    store: StoreOption = Path("artifacts"),
    allow_undecided: AllowUndecidedOption = False,
    profile: Annotated[
        str | None,
        typer.Option("--profile", help="Do it on the device of this profile, which has an address.", metavar="NAME|FILE", autocompletion=complete_profiles),
    ] = None,
    key: Annotated[Path | None, typer.Option("--key", help="Public key (PEM) that the package must be signed with.", metavar="FILE")] = None,
) -> None:
    """Check a package on this machine, or on a device.

    In this order: with --key who signed it; files, machine, runtime, and the engine against its golden results; with --time its latency,
    start, memory and energy. A budget that is a fraction of the dense engine's latency needs that engine, which only the store that
    the package was made in has.

    Example: bonsai verify artifacts/packages/resnet-edge--local-cpu
             bonsai verify artifacts/packages/resnet-edge--local-cpu --time
             bonsai verify artifacts/packages/resnet-edge--kitchen-pi --profile kitchen-pi.yaml
    """
    from bonsai.pipeline.cli.progress_lines import show_progress
    from bonsai.profiles.loader import load_remote
    from bonsai.stages.backends.devices import device_of
    from bonsai.stages.delivery.packaged_timing import time_package
    from bonsai.stages.delivery.verification import verify_on, verify_package
    from bonsai.stages.errors import GateMissed
    from bonsai.stages.measurement.verdicts import fails

    there = load_remote(profile).target if profile is not None else None
    show_progress()
    checked = verify_on(device_of(there), package, key=key) if there is not None else verify_package(package, require_run=require_run, key=key)
    for line in checked:
        typer.echo(line)
    if not time:
        return
    lines, gates = time_package(package, store, there)
    for line in lines:
        typer.echo(line)
    if failing := [gate.sentence for gate in gates if fails(gate, allow_undecided)]:
        raise GateMissed("; ".join(failing))


def predict(
    package: Annotated[Path, typer.Argument(help="Folder of a package.", metavar="PACKAGE")],
    files: Annotated[list[Path] | None, typer.Argument(help="Images, .npy arrays, or .csv tables of paths.", metavar="[FILE]...")] = None,
    check: Annotated[
        Path | None, typer.Option("--check", help="Compute the package's figure on a folder of classes, or on a table with targets.", metavar="FOLDER|CSV")
    ] = None,
    portable: Annotated[bool, typer.Option("--portable", help="Run model.onnx in ONNX Runtime on any CPU, instead of the engine.")] = False,
    out: Annotated[Path | None, typer.Option("--out", help="Write the masks that a segmentation predicts there.", metavar="DIR")] = None,
    as_json: JsonOption = False,
) -> None:
    """Predict images with a package, or check its figure.

    Does what the package's own predict.py does, which needs NumPy, Pillow and the runtime, but no Bonsai.

    Example: bonsai predict artifacts/packages/resnet-edge--local-cpu cat.jpg dog.jpg
             bonsai predict artifacts/packages/resnet-edge--local-cpu --check images
    """
    from bonsai.profiles.errors import ConfigError, describe
    from bonsai.stages.delivery.contents import require_package, require_recipe
    from bonsai.stages.delivery.predict.program import Asked, answer

    if bool(files) == bool(check):
        raise ConfigError(describe("nothing to predict, or two things", given=files or "no file", allowed="files, or --check FOLDER", fix="give one of them"))
    require_package(package)
    require_recipe(package)
    code = answer(package, Asked(files or (), check, as_json, portable, out))
    if code:
        raise typer.Exit(code)


def sign(
    package: Annotated[Path, typer.Argument(help="Folder of a package.", metavar="PACKAGE")],
    key: Annotated[Path, typer.Option("--key", help="Private key of an elliptic curve, PEM.", metavar="FILE")],
) -> None:
    """Sign a package, so that others can tell who made it.

    Writes model.sig into the package; `bonsai verify --key FILE` checks it. The password of an encrypted key is read from the environment
    variable BONSAI_KEY_PASSWORD. Needs the extra `sign`.

    Example: bonsai sign artifacts/packages/resnet-edge--local-cpu --key private.pem
             bonsai verify artifacts/packages/resnet-edge--local-cpu --key public.pem
    """
    from bonsai.stages.delivery.contents import read_any_intact
    from bonsai.stages.delivery.signing import sign as sign_package

    read_any_intact(package)
    typer.echo(sign_package(package, key))


def lay_out(
    layout: Annotated[Layout, typer.Argument(help="For what: a Triton server, or a minimal build of ONNX Runtime.")],
    packages: Annotated[list[Path], typer.Argument(help="Folders of packages.", metavar="PACKAGE")],
    out: Annotated[Path, typer.Option("--out", help="Where the models are laid out.", metavar="DIR")] = Path("models"),
) -> None:
    """Lay packages out for what runs them elsewhere.

    triton: models of a Triton model repository. ort: files in ORT format and the operators that a minimal build of ONNX Runtime needs. Nothing is
    run again.

    Example: bonsai layout triton artifacts/packages/resnet-edge--local-cpu
             tritonserver --model-repository models
    """
    from bonsai.pipeline.run.publish import lay_out as lay_out_package

    for package in packages:
        typer.echo(lay_out_package(layout.value, package, out))
