"""`bonsai serve`."""

from pathlib import Path

from pipeline.commands.options import StoreOption


def serve(store: StoreOption = Path("artifacts")) -> None:
    """Serve the recipes as Prefect deployments.

    Two deployments per shipped recipe, compress/NAME and compare/NAME, with a local server if none answers.

    Example: bonsai serve
             and in another shell:
             prefect deployment run compress/resnet-edge --watch
    """
    from pipeline.service.serve import serve as serve_deployments

    serve_deployments(store)
