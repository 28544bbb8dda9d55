"""What a recipe says of its packages."""

from bonsai.profiles.located_yaml import Record


class PackageConfig(Record):
    """What a package holds besides the engine.

    Attributes:
        network: Whether the package holds the pruned network for torch: `network.pt2`, `network.safetensors` and `network.json`. Together they are
            twice as large as the float weights.
    """

    network: bool = True
