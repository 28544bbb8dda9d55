"""Stage `shrink`: a dataset whose images are made smaller at the end of their preprocessing."""

from pathlib import Path
from shutil import copyfile

import numpy as np
from safetensors.numpy import load_file, save_file

from bonsai.stages.data.dataset import Dataset
from bonsai.stages.data.pixels import shrink as shrink_image
from bonsai.stages.data.source import part_file
from bonsai.stages.store.artifact import sha256_text
from bonsai.stages.store.store import stage
from bonsai.stages.store.tensor_files import written_plainly


def figures_of(dataset: Dataset) -> str:
    """Return the size of the images, in a few words."""
    return "x".join(map(str, dataset.preprocess.size))


@stage(version=1, tools=("numpy", "pillow"), figures=figures_of)
def shrink(out_dir: Path, dataset: Dataset, size: tuple[int, int]) -> Dataset:
    """Write the same samples, smaller; where samples are made anew whenever they are needed, they are made smaller then.

    Args:
        out_dir: Receives one file per part.
        dataset: Images of the full size.
        size: Height and width in pixels, neither above the full one.
    """
    preprocess = dataset.preprocess.at(size)
    for part in dataset.sizes:
        source, target = part_file(dataset.folder, part), part_file(out_dir, part)
        if dataset.stored == "index":
            copyfile(source, target)
            continue
        arrays = load_file(source)
        images = np.stack([shrink_image(image, preprocess) for image in arrays["images"]])
        with written_plainly(target):
            save_file({**arrays, "images": images}, target)
    contents = {part: sha256_text(f"{digest} {size}") for part, digest in dataset.contents.items()}
    return dataset.model_copy(update={"folder": out_dir, "digest": "", "key": "", "preprocess": preprocess, "contents": contents})
