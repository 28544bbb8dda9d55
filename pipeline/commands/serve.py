"""`bonsai serve`."""

from pathlib import Path

from pipeline.commands.options import StoreOption


def serve(store: StoreOption = Path("artifacts")) -> None:
    """Serve a Prefect deployment per shipped recipe, with a local server if none answers.

    Example: bonsai serve, then in another shell: prefect deployment run compress/resnet-edge --watch
    """
    from pipeline.serve import serve as serve_deployments

    serve_deployments(store)
