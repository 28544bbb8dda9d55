"""The licences of the parts of a package, as far as Bonsai knows them."""

from bonsai.stages.data.dataset import Dataset
from bonsai.stages.networks.config import ModelConfig
from bonsai.stages.texts import markdown

BONSAI = "Apache-2.0"
NVIDIA = "NVIDIA's software licence agreement for TensorRT (proprietary, it comes with the library)"
RUNTIMES = {"onnxruntime": "MIT", "openvino": "Apache-2.0", "tensorrt": NVIDIA, "tensorrt-rtx": NVIDIA}
"""Licence of the library that runs the engine, by runtime."""


def licence_notes(dataset: Dataset, model: ModelConfig, runtime: str, given: str | None = None) -> str:
    """Return a list in Markdown.

    Args:
        dataset: Data that the network was trained on; the golden images are from it.
        model: The network.
        runtime: Software that runs the engine.
        given: The weights that the training began with, as the recipe names them; None if they were random.
    """
    weights = "trained from scratch on these data alone"
    if ":" in model.name:
        weights = f"trained on these data from what `{model.name}`, code of the user's own, begins with: under which licence that is, Bonsai cannot know"
    if given is not None:
        weights = f"trained on these data from given weights ({markdown(given)}): under which licence those are, Bonsai cannot know"
    return "\n".join(
        [
            f"- Data (`{dataset.name}`; the golden images are some of them): {markdown(dataset.licence)}",
            f"- Weights: {weights}",
            f"- Runtime that the engine needs, not in the package: {runtime}, {RUNTIMES.get(runtime, 'see its own licence')}",
            f"- Bonsai, which made the package and is not in it: {BONSAI}",
        ]
    )
