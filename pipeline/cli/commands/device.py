"""`bonsai device`: what is done with a device that is another machine."""

from pathlib import Path
from typing import Annotated

import typer

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

    Makes an environment there with the plain install of this very Bonsai, which has no torch. What is up to date already is left as it is.

    Example: bonsai device setup ssh://pi@kitchen.local
             bonsai device setup ssh://kitchen --extra openvino
    """
    from bonsai.pipeline.cli.progress_lines import show_progress
    from bonsai.profiles.address import require_address, require_python
    from bonsai.stages.backends.remote.setup import Wanted, set_up

    show_progress()
    for line in set_up(require_address(address), Wanted(require_python(python), tuple(extras or ()), wheels, system_packages)):
        typer.echo(line)
