"""`bonsai device`: what is done with a device that is another machine."""

from pathlib import Path
from typing import Annotated

import typer

from bonsai.pipeline.cli.commands.completion import complete_profiles
from bonsai.pipeline.cli.commands.options import JsonOption
from bonsai.profiles.address import PYTHON

AddressArgument = Annotated[str, typer.Argument(help="Where the device is: ssh://host, ssh://user@host:port.", metavar="ADDRESS")]
PythonOption = Annotated[str, typer.Option("--python", help="Python of the environment on the device, FOLDER/bin/python.", metavar="PATH")]


def setup(
    address: AddressArgument,
    python: PythonOption = PYTHON,
    extras: Annotated[
        list[str] | None, typer.Option("--extra", help="Install a runtime too: openvino, rtx or tensorrt; repeat it for several.", metavar="NAME")
    ] = None,
    wheels: Annotated[
        Path | None, typer.Option("--wheels", help="Wheels for a device without network; they are copied there and installed.", metavar="FOLDER")
    ] = None,
    system_packages: Annotated[
        bool, typer.Option("--system-packages", help="Let the environment use the system's packages, such as JetPack's TensorRT.")
    ] = False,
) -> None:
    """Install Bonsai on a device, over ssh.

    Makes an environment there and installs this version of Bonsai into it, without torch. An environment that is up to date is left alone.

    Example: bonsai device setup ssh://pi@kitchen.local
             bonsai device setup ssh://kitchen --extra openvino
    """
    from bonsai.pipeline.cli.progress_lines import show_progress
    from bonsai.profiles.address import require_address, require_python
    from bonsai.stages.backends.remote.setup import Wanted, set_up

    show_progress()
    for line in set_up(require_address(address), Wanted(require_python(python), tuple(extras or ()), wheels, system_packages)):
        typer.echo(line)


def check(
    profile: Annotated[str, typer.Argument(help="Target whose device is checked, by name or file.", metavar="PROFILE", autocompletion=complete_profiles)],
    as_json: JsonOption = False,
) -> None:
    """Show what a device is, and how it is doing.

    Instruction sets, cores, governor, clock, temperature, throttling, memory, versions of the runtimes, and the time of a round trip: of the device at the
    profile's address, or of this machine. Ends with code 5 where the profile's device is not there, or lacks the runtime that the profile asks for.

    Example: bonsai device check local-cpu
             bonsai device check kitchen-pi.yaml --json
    """
    from bonsai.profiles.loader import load_profile
    from bonsai.stages.backends.devices import device_of, require_there

    loaded = load_profile(profile)
    require_there(loaded)
    device = device_of(loaded.target)
    found = device.check_up()
    if as_json:
        typer.echo(found.model_dump_json(indent=2))
    else:
        for subject, told in found.rows:
            typer.echo(f"{subject:18}{told}")
    info = device.describe(loaded.target)
    if not as_json:
        typer.echo(
            f"{'profile':18}{loaded.name}: {info.runtime} {info.runtime_version} ({loaded.target.runtime_version}), {', '.join(loaded.target.precisions)}"
        )
