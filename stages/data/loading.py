"""Calls the loader of a dataset, and checks what it returns: the same way where a set is prepared and where its samples are made later."""

from contextlib import AbstractContextManager
from functools import lru_cache

from bonsai.stages.data.checking import check_loaded
from bonsai.stages.data.config import FILES, DataConfig
from bonsai.stages.data.origin import Origin
from bonsai.stages.data.registry import LOADERS, LoadedImages, LoadedSamples, root_of
from bonsai.stages.imports.declared import in_place, places_of
from bonsai.stages.imports.reading import warning_of_undeclared
from bonsai.stages.imports.registry import resolve
from bonsai.stages.imports.user_code import user_code


def load_data(data: DataConfig) -> LoadedImages | LoadedSamples:
    """Call the dataset's loader with the recipe's options, and check what it returns.

    Raises:
        ConfigError: The loader cannot be called, raises something, or returns what no network can be trained on.
    """
    options = in_place(data.options, data.files, data.content, FILES)
    with watching(data):
        loader = resolve(data.name, LOADERS, "dataset")
        with user_code(
            f"data.options do not fit dataset {data.name!r}",
            given=f"data.options {data.options}",
            allowed="a loader that takes what data.options names",
            fix="see `bonsai list datasets`; or mend the line named above, if the loader is yours",
            passing=(OSError,) if data.name in LOADERS else (),
        ):
            return check_loaded(loader(**options), data.name)


def watching(data: DataConfig) -> AbstractContextManager[None]:
    """Return a context in which files that a loader of the user's own reads, and that are no part of the input, are told."""
    root = root_of(data)
    return warning_of_undeclared(data.name, FILES, [*places_of(data.files, data.content, FILES), *([root] if root else [])])


@lru_cache(maxsize=2)
def samples_of(origin: str) -> LoadedSamples:
    """Return the samples of a dataset whose loader makes them; kept, since every stage of a run asks for the same.

    Args:
        origin: JSON of an `Origin`.

    Raises:
        ConfigError: The loader, or what it reads, is not what it was.
    """
    was = Origin.model_validate_json(origin)
    options = was.options | ({"root": str(was.root)} if was.source else {})
    loaded = load_data(DataConfig(name=was.name, options=options, files=was.files, content=was.content))
    assert isinstance(loaded, LoadedSamples), "images in memory are stored as pixels"
    return loaded
