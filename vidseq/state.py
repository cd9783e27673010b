"""State is a value: named tensors, batch first, that go in and come out. Knows nothing of the models that read it.

    names      recurrent.LAYER.*          the recurrent layers, such as recurrent.0.h
               action.READOUT.*           the running readout of the action head

Every tensor has the batch of streams in front: stacking many streams is one `cat` a name,
splitting them one `unbind`.

Shape letters: B streams.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor

from vidseq.errors import StateError

SCHEMA = "1"
MAX_STATE_BYTES = 64 * 1024


@dataclass(frozen=True)
class StateHeader:
    """To whom a state belongs: `trunk` is the hash of encoder, sampling, recurrence and precision.

    Labels are not named: new heads with the same readout do not make a stream's memory worthless.
    """

    trunk: str
    cell: str
    dtype: str
    schema: str = SCHEMA

    def to_metadata(self) -> dict[str, str]:
        return {"schema": self.schema, "trunk": self.trunk, "cell": self.cell, "dtype": self.dtype}


@dataclass(frozen=True, eq=False)
class State:
    """What one stream, or a batch of B streams, remembers between two chunks."""

    tensors: Mapping[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        sizes = {tensor.shape[0] for tensor in self.tensors.values()}
        assert len(sizes) <= 1, f"tensors of one state disagree about the batch: {sizes}"

    def __repr__(self) -> str:
        shapes = ", ".join(f"{name}: {tuple(tensor.shape)}" for name, tensor in self.tensors.items())
        return f"State({shapes})"

    @property
    def num_bytes(self) -> int:
        """Of one stream's numbers, without the names that are written beside them."""
        return sum(tensor.nbytes // len(tensor) for tensor in self.tensors.values())

    def part(self, prefix: str) -> dict[str, Tensor]:
        """The tensors under `prefix`, without it; empty at the start of a video."""
        dotted = prefix + "."
        return {name.removeprefix(dotted): tensor for name, tensor in self.tensors.items() if name.startswith(dotted)}

    def replace(self, tensors: Mapping[str, Tensor], *, prefix: str = "") -> "State":
        """A new state in which these tensors have taken the place of those of the same name."""
        dotted = f"{prefix}." if prefix else ""
        return State({**self.tensors, **{dotted + name: tensor for name, tensor in tensors.items()}})

    def to(self, device: torch.device | str) -> "State":
        """The same numbers on another device."""
        return State({name: tensor.to(device) for name, tensor in self.tensors.items()})

    def split(self) -> list["State"]:
        """B states of one stream each: views, so that the batch lives for as long as one of them."""
        rows = zip(*(tensor.unsqueeze(1).unbind() for tensor in self.tensors.values()), strict=True)
        return [State(dict(zip(self.tensors, row, strict=True))) for row in rows]

    def to_bytes(self, header: StateHeader) -> bytes:
        """Safetensors, never pickle. One stream is a few KB.

        Raises:
            StateError: it takes more than `MAX_STATE_BYTES`, which `from_bytes` would refuse.
        """
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in self.tensors.items()}
        data: bytes = save_tensors(tensors, metadata=header.to_metadata())
        _check_size(data)
        return data

    @classmethod
    def from_bytes(cls, data: bytes, *, header: StateHeader, like: "State") -> "State":
        """Read back what `to_bytes` wrote, from a caller who may have written anything.

        Args:
            header: the model that shall read it.
            like: a state of that model, of as many streams (`initial_state(1)`): what comes back has its tensors,
                so that it can share a batch with other callers' states and not fail them.

        Raises:
            StateError: too large, not a state, one that belongs to another model, or one of other tensors.
        """
        _check_size(data)
        try:
            tensors = load_tensors(data)
        except SafetensorError as error:
            raise StateError(f"these bytes are not a state: {error}") from None
        found = _metadata(data)
        for name, expected in header.to_metadata().items():
            if found.get(name) != expected:
                raise StateError(f"the state's {name} is {found.get(name)!r}, this model's is {expected!r}")
        wanted = {name: _kind(tensor) for name, tensor in like.tensors.items()}
        if (given := {name: _kind(tensor) for name, tensor in tensors.items()}) != wanted:
            raise StateError(f"the state's tensors are {given}, this model's are {wanted}")
        return cls(tensors)


def stack(states: Sequence[State]) -> State:
    """One state of B streams from B states of one stream; all must have the same tensors.

    Raises:
        StateError: they come from different models, or some have started and some have not.
    """
    names = states[0].tensors.keys()
    if any(state.tensors.keys() != names for state in states):
        raise StateError("states with different tensors cannot be stacked")
    return State({name: torch.cat([state.tensors[name] for state in states]) for name in names})


def _check_size(data: bytes) -> None:
    if len(data) > MAX_STATE_BYTES:
        raise StateError(f"a state of {len(data):,} bytes; at most {MAX_STATE_BYTES:,} are allowed")


def _kind(tensor: Tensor) -> str:
    """Its type and shape, such as float32[1, 2, 64]."""
    return f"{str(tensor.dtype).removeprefix('torch.')}{list(tensor.shape)}"


def _metadata(data: bytes) -> dict[str, str]:
    """What `save` was given, from the header of bytes that safetensors has found sound."""
    length = int.from_bytes(data[:8], "little")
    metadata: dict[str, str] = json.loads(data[8 : 8 + length]).get("__metadata__", {})
    return metadata
