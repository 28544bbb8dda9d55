"""What only training needs: the extra `train`. The plain install reads packages, and builds, times and runs engines."""

from bonsai.profiles.errors import ConfigError, describe

MODULES = frozenset({"torch", "torchvision", "torch_pruning", "prefect", "fastapi", "httpx", "onnxscript", "onnxsim", "sklearn", "matplotlib", "timm"})
"""What the extra's packages are imported as."""
INSTALL = "pip install 'bonsai-compress[train]'"


def explain_missing(error: ModuleNotFoundError) -> ConfigError | None:
    """Return the error that names the extra where one of its modules is missing, or None where another one is."""
    name = (error.name or "").partition(".")[0]
    if name not in MODULES:
        return None
    allowed = "Bonsai with the extra `train`; without it: bonsai list, schema, show, verify, predict, sign, report, layout and gc"
    return ConfigError(describe("this needs the extra `train`, which is not installed", given=f"no module {name}", allowed=allowed, fix=INSTALL))
