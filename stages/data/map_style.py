"""Map-style datasets of (input, target), such as torchvision's and users' own, as samples by number."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from bonsai.profiles.errors import ConfigError, describe
from bonsai.stages.data.files import require_proportions, upright_size
from bonsai.stages.data.pixels import as_sample, to_array, to_mask
from bonsai.stages.data.preprocess import Preprocess, scale_of
from bonsai.stages.data.registry import PARTS, LoadedDatasets, LoadedSamples, MapStyle

KNOWN_TARGETS = ("targets", "labels", "_labels")
"""Attributes in which torchvision's datasets keep the targets of all samples."""
LOOKED_AT = 5
"""Samples whose targets are compared with such an attribute before it is believed."""
FORMS = "(input, target): the input a PIL image, or a tensor or array (channels, height, width) or (channels, length)"


class DatasetSamples(Dataset[tuple[np.ndarray, Any]]):
    """The samples of one or several datasets, one after the other.

    Args:
        datasets: Map-style.
        preprocess: How inputs become arrays.
    """

    def __init__(self, datasets: Sequence[MapStyle], preprocess: Preprocess) -> None:
        self._datasets, self._preprocess = tuple(datasets), preprocess
        self._ends = np.cumsum([len(dataset) for dataset in datasets])

    def __len__(self) -> int:
        """Return the number of samples."""
        return int(self._ends[-1])

    def __getitem__(self, number: int) -> tuple[np.ndarray, Any]:
        """Return a sample and its target.

        Raises:
            ValueError: The sample does not fit.
        """
        which = int(np.searchsorted(self._ends, number, side="right"))
        sample = self._datasets[which][number - int(self._ends[which - 1] if which else 0)]
        try:
            given, target = _pair(sample)
            if isinstance(given, Image.Image) and isinstance(target, Image.Image):
                require_proportions(upright_size(given), upright_size(target))
            array = to_array(given, self._preprocess) if isinstance(given, Image.Image) else as_sample(np.asarray(given), self._preprocess)
            return array, to_mask(target, self._preprocess) if isinstance(target, Image.Image) else np.asarray(target)
        except ValueError as error:
            raise ValueError(f"sample {number}: {error}") from error


class _Targets(Dataset[np.ndarray]):
    """The targets alone, as a `DataLoader` collects them."""

    def __init__(self, samples: DatasetSamples) -> None:
        self._samples = samples

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, number: int) -> np.ndarray:
        return np.asarray(self._samples[number][1])


def from_datasets(loaded: LoadedDatasets, place: str, workers: int = 0) -> LoadedSamples:
    """Return the samples of datasets, with the targets of all where those are no masks.

    Args:
        loaded: What a loader returned.
        place: Name of the dataset in messages.
        workers: Processes that make the samples, where their targets are known in no other way.

    Raises:
        ConfigError: They are no map-style datasets, or their samples do not fit.
    """
    by_part = loaded.datasets if isinstance(loaded.datasets, Mapping) else {None: loaded.datasets}
    for name, dataset in by_part.items():
        _check_dataset(name, dataset, place)
    if None not in by_part and "train" not in by_part:
        raise _refusal(place, "there is no dataset to train on", ", ".join(map(str, by_part)), "train, val and test", "name one of them train")
    datasets = list(by_part.values())
    samples = DatasetSamples(datasets, _preprocess_of(datasets[0], loaded, place))
    try:
        targets = None if np.ndim(samples[0][1]) > 1 else _all_targets(datasets, samples, workers)
    except ValueError as error:
        raise _refusal(place, "a sample does not fit", error, FORMS, "mend the dataset, or say `preprocess` and `value_range`") from error
    parts = None if None in by_part else np.repeat([PARTS[str(name)] for name in by_part], [len(dataset) for dataset in datasets])
    return LoadedSamples(samples, targets, loaded.classes, loaded.licence, samples._preprocess, parts)


def _check_dataset(name: object, dataset: Any, place: str) -> None:
    if name is not None and name not in PARTS:
        raise _refusal(place, "datasets name unknown parts", name, ", ".join(PARTS), "rename it")
    if isinstance(dataset, DataLoader) or not (hasattr(dataset, "__len__") and hasattr(dataset, "__getitem__")):
        given = f"{type(dataset).__module__}.{type(dataset).__qualname__}"
        raise _refusal(place, "a dataset is not map-style", given, "an object with len() and [number]", "return the dataset, no DataLoader and no iterator")
    if not len(dataset):
        raise _refusal(place, "a dataset is empty", name or "the dataset", "at least one sample", "check its files")


def _preprocess_of(dataset: MapStyle, loaded: LoadedDatasets, place: str) -> Preprocess:
    """Return how inputs become arrays: as it was said, or as the first sample is."""
    try:
        given, _ = _pair(dataset[0])
    except ValueError as error:
        raise _refusal(place, "the first sample is no pair", error, FORMS, "return (input, target)") from error
    scale = {} if loaded.value_range is None else {"scale": scale_of(loaded.value_range, fractions=np.asarray(given).dtype.kind == "f")}
    if loaded.preprocess is not None:
        return loaded.preprocess.model_copy(update=scale)
    if isinstance(given, Image.Image):
        fix = "say it: LoadedDatasets(..., preprocess=Preprocess.of((3, 224, 224))); or resize them in the dataset and return tensors"
        raise _refusal(place, "PIL images have no size of their own", f"{given.mode} {given.size}", "a size for all", fix)
    array = np.asarray(given)
    if array.ndim not in (2, 3) or array.dtype.kind not in "uif":
        raise _refusal(place, "a sample is no image and no series", f"{array.dtype} {list(array.shape)}", FORMS, "return numbers, the channels first")
    if not scale and array.dtype != np.uint8:
        fix = "state it: LoadedDatasets(..., value_range=(0, 1))"
        raise _refusal(place, "samples are no uint8, and their range is not stated", f"{array.dtype} {list(array.shape)}", "uint8, or a value_range", fix)
    return Preprocess.of(array.shape).model_copy(update=scale)


def _all_targets(datasets: Sequence[MapStyle], samples: DatasetSamples, workers: int) -> np.ndarray:
    """Return the targets of all samples: those that the datasets keep, or, one by one, those of the samples."""
    kept = [_kept_targets(dataset) for dataset in datasets]
    if all(targets is not None for targets in kept):
        known = np.concatenate([targets for targets in kept if targets is not None])
        looked_at = np.linspace(0, len(samples) - 1, LOOKED_AT).astype(int)
        if len(known) == len(samples) and all(np.array_equal(known[number], samples[number][1]) for number in looked_at):
            return known
    loader = DataLoader(_Targets(samples), batch_size=64, num_workers=workers, collate_fn=np.stack, multiprocessing_context="fork" if workers else None)
    return np.concatenate(list(loader))


def _kept_targets(dataset: MapStyle) -> np.ndarray | None:
    found = next((getattr(dataset, name) for name in KNOWN_TARGETS if isinstance(getattr(dataset, name, None), list | np.ndarray | torch.Tensor)), None)
    return None if found is None else np.asarray(found)


def _pair(sample: Any) -> tuple[Any, Any]:
    if not isinstance(sample, tuple | list) or len(sample) != 2:
        raise ValueError(f"{type(sample).__name__}{f' of {len(sample)}' if isinstance(sample, tuple | list | dict) else ''}; a sample is (input, target)")
    return sample[0], sample[1]


def _refusal(place: str, problem: str, given: object, allowed: str, fix: str) -> ConfigError:
    return ConfigError(describe(f"{place}: {problem}", given=given, allowed=allowed, fix=fix))
