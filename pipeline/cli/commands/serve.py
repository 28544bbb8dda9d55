"""`bonsai serve`."""

from pathlib import Path
from typing import Annotated

import typer

from bonsai.pipeline.cli.commands.options import StoreOption
from bonsai.pipeline.service.reach import LOOPBACK

HostOption = Annotated[
    str, typer.Option("--host", help="Where the server listens; beyond this machine only with PREFECT_SERVER_API_AUTH_STRING=USER:PASSWORD.", metavar="ADDRESS")
]


def serve(store: StoreOption = Path("artifacts"), host: HostOption = LOOPBACK) -> None:
    """Serve the recipes as Prefect deployments.

    Two deployments per shipped recipe, compress/NAME and compare/NAME, with a local server if none answers.

    Example: bonsai serve
             and in another shell:
             prefect deployment run compress/resnet-edge --watch
    """
    from bonsai.pipeline.service.serve import serve as serve_deployments

    serve_deployments(store, host)
