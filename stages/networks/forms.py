"""How a network takes its inputs or returns its outputs: as one tensor, a tuple or a dict of tensors."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, NamedTuple, TypeVar

from bonsai.profiles.errors import ConfigError, describe
from bonsai.stages.networks.several_outputs import named_outputs
from bonsai.stages.tasks.task import TensorSpec

ValueT = TypeVar("ValueT")
Kind = Literal["tensor", "tuple", "dict"]


class Form(NamedTuple):
    """What a network takes or returns.

    Attributes:
        kind: How the tensors come; a named tuple is a tuple. A tuple of inputs is passed to `forward` by position, a dict by name.
        keys: Their names: keys of the dict, or places in the tuple.
        shapes: Their shapes without the batch.
    """

    kind: Kind
    keys: tuple[str, ...]
    shapes: tuple[tuple[int, ...], ...]

    def arranged(self, values: Sequence[ValueT]) -> ValueT | tuple[ValueT, ...] | dict[str, ValueT]:
        """Return one value for each tensor in the way in which the network has them."""
        if self.kind == "tensor":
            return values[0]
        return tuple(values) if self.kind == "tuple" else dict(zip(self.keys, values, strict=True))

    def tensors_in(self, found: object) -> list[Any]:
        """Return the tensors out of what the network takes or returns."""
        named = named_outputs(found)
        return [found] if named is None else list(named.values()) if self.kind == "tuple" else [named[key] for key in self.keys]

    def values_in(self, given: object) -> list[Any] | None:
        """Return a value for each tensor out of what somebody gives, which may have more behind them; None where it has another form."""
        if self.kind == "tensor":
            return None if isinstance(given, Mapping | tuple | list) else [given]
        if self.kind == "dict":
            return [given[key] for key in self.keys] if isinstance(given, Mapping) and set(self.keys) <= set(given) else None
        return list(given[: len(self.keys)]) if isinstance(given, tuple | list) and len(given) >= len(self.keys) else None

    def specs(self, names: Sequence[str] | None, role: Literal["input", "output"], taken: Sequence[TensorSpec] = ()) -> tuple[TensorSpec, ...]:
        """Return the tensors as an exported file has them.

        Args:
            names: Their names there; None for the network's own.
            role: What they are; the name of a single one without a name.
            taken: Other tensors of the file.

        Raises:
            ConfigError: There are more or fewer names than tensors, or two are the same.
        """
        own = {"tensor": (role,), "tuple": tuple(f"{role}_{key}" for key in self.keys), "dict": self.keys}[self.kind]
        chosen, others = own if names is None else tuple(names), {spec.name for spec in taken}
        if len(chosen) != len(own) or len({*chosen, *others}) != len(own) + len(others) or not all(isinstance(name, str) and name for name in chosen):
            beside = f" beside {', '.join(f'`{name}`' for name in sorted(others))}" if others else ""
            allowed = f"{len(own)} different names{beside}, one for each of {', '.join(own)}"
            problem, fix = f"the names of the {role}s do not fit the network", f"name each {role} once: {role}s=(...)"
            raise ConfigError(describe(problem, given=", ".join(map(str, chosen)), allowed=allowed, fix=fix))
        return tuple(TensorSpec(name, shape) for name, shape in zip(chosen, self.shapes, strict=True))
