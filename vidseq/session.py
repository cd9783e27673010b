"""All that one stream remembers between two pushes, as a value of a few KB. Knows nothing of models, stores or HTTP.

Session  =  state (the model's)  +  track (labelling's)  +  pace (what has come in)  +  counts

bytes    =  length of the JSON, 4 bytes  |  JSON: all plain numbers  |  safetensors: all tensors
"""

from dataclasses import dataclass, replace

import numpy as np
import torch
from pydantic import TypeAdapter, ValidationError

from vidseq.errors import StateError
from vidseq.intake import Pace
from vidseq.labelling import Track
from vidseq.naming import Probabilities
from vidseq.segments import Automaton
from vidseq.state import State, StateHeader

PREFIX = "session"  # of the tensors that are labelling's, not the model's


@dataclass(frozen=True)
class Spent:
    """Milliseconds of all pushes together, as in schemas.Timings."""

    decode_ms: float = 0.0
    encode_ms: float = 0.0
    recur_ms: float = 0.0
    queued_ms: float = 0.0

    @property
    def compute_seconds(self) -> float:
        return (self.decode_ms + self.encode_ms + self.recur_ms) / 1000

    def plus(self, **milliseconds: float) -> "Spent":
        return replace(self, **{name: getattr(self, name) + more for name, more in milliseconds.items()})


@dataclass(frozen=True, eq=False)
class Session:
    """One stream after `sequence` pushes."""

    state: State
    track: Track
    pace: Pace
    spent: Spent
    sequence: int = 0

    def to_bytes(self, header: StateHeader) -> bytes:
        """Raises StateError: it is larger than a state may be."""
        track = self.track
        plain = _PLAIN.dump_json(
            _Plain(
                sequence=self.sequence,
                pace=self.pace,
                spent=self.spent,
                automaton=track.automaton,
                pending=track.pending,
                num_frames=track.num_frames,
                first_seconds=track.first_seconds,
                last_seconds=track.last_seconds,
                before_last_seconds=track.before_last_seconds,
            )
        )
        said = {name: torch.from_numpy(scores)[None] for name, scores in _said(track).items()}
        tensors = self.state.replace(said, prefix=PREFIX).to_bytes(header)
        return len(plain).to_bytes(4, "little") + plain + tensors

    @classmethod
    def from_bytes(cls, data: bytes, *, header: StateHeader, like: "Session") -> "Session":
        """Read back what `to_bytes` wrote. `like` is a session of the same model that has not begun.

        Raises:
            StateError: not a session, or one of another model.
        """
        end = 4 + int.from_bytes(data[:4], "little")
        try:
            plain = _PLAIN.validate_json(data[4:end])
        except ValidationError:
            raise StateError("these bytes are not a session") from None
        expected = {name: torch.from_numpy(scores)[None] for name, scores in _said(like.track).items()}
        state = State.from_bytes(data[end:], header=header, like=like.state.replace(expected, prefix=PREFIX))
        said = {name: tensor[0].numpy() for name, tensor in state.part(PREFIX).items()}
        own = State({name: tensor for name, tensor in state.tensors.items() if name in like.state.tensors})
        track = Track(
            automaton=plain.automaton,
            pending=plain.pending,
            action_A=said.get("action"),
            frame_L=said.get("frame"),
            num_frames=plain.num_frames,
            first_seconds=plain.first_seconds,
            last_seconds=plain.last_seconds,
            before_last_seconds=plain.before_last_seconds,
        )
        return cls(own, track, plain.pace, plain.spent, plain.sequence)


@dataclass(frozen=True)
class _Plain:
    """The plain numbers of a session."""

    sequence: int
    pace: Pace
    spent: Spent
    automaton: Automaton
    pending: tuple[float, ...]
    num_frames: int
    first_seconds: float
    last_seconds: float
    before_last_seconds: float | None


_PLAIN = TypeAdapter(_Plain)


def _said(track: Track) -> dict[str, Probabilities]:
    scores = {"action": track.action_A, "frame": track.frame_L}
    return {name: np.ascontiguousarray(array) for name, array in scores.items() if array is not None}
