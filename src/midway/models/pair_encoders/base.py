"""Interface of pretrained networks between two frames, and their descriptions in files."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

from torch import Tensor, nn

from midway.config import to_json
from midway.models.encoders.base import EncoderSpec, Map, build_kind
from midway.registry import available, find

PACKAGE = "midway.models.pair_encoders"
PAIR_ENCODER = "pair_encoder"
"""Key of the description in checkpoints and in the header of .safetensors files."""


class PairEncoder(nn.Module, ABC):
    """Base of networks that refine the features of one frame by those of another.

    Optical flow is finetuned from their four maps (`midway.models.flow.pair_network`). A kind is
    one file in this package; its `PAIR_ENCODER` names the class. `kind` and `config` suffice to
    build the network again.
    """

    kind: ClassVar[str]
    """Name of its file in this package."""
    Config: ClassVar[type]
    """Frozen dataclass of its sizes, convertible to JSON."""
    config: Any
    """An instance of `Config`."""
    levels: tuple[int, ...]
    """Levels of the encoder that `maps` reads, 1-based or negative from the top."""
    widths: tuple[int, int, int, int]
    """Channels of the four maps."""

    @classmethod
    def from_config(cls, config: Any) -> Self:
        """Build the network with fresh weights, drawn from torch's generator."""
        return cls(config)

    @classmethod
    def read_tensors(cls, tensors: Mapping[str, Tensor]) -> tuple[Any, dict[str, Tensor]] | None:
        """Infer the sizes from the tensors of a file without configuration.

        Args:
            tensors: All tensors beside those of the encoder, by their names in the file.

        Returns:
            The configuration and the tensors of the network, or None if there is none of this
            kind.

        """
        return None

    @abstractmethod
    def maps(self, source: Sequence[Map], target: Sequence[Map]) -> list[Map]:
        """Return four maps of the source frame for a DPT head, of the rows and columns of `source`.

        Args:
            source: The encoder's maps of the first frame at `levels`.
            target: The same of the second frame.

        """


@dataclass(frozen=True, kw_only=True)
class PairEncoderSpec(EncoderSpec):
    """Description of a pair encoder in a checkpoint or file: kind, configuration and prefix."""

    def build(self, *, where: str) -> PairEncoder:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Build the network with fresh weights, drawn from torch's generator.

        Raises:
            MidwayError: There is no such kind, or it refuses the sizes; the message names `where`.

        """
        return build_kind(PACKAGE, "PAIR_ENCODER", self, where=where)


def recognise_pair(
    tensors: Mapping[str, Tensor],
) -> tuple[PairEncoderSpec, dict[str, Tensor]] | None:
    """Infer kind, sizes and tensors of a pair encoder; None if no kind matches."""
    for name in available(PACKAGE):
        found = find(PACKAGE, name).PAIR_ENCODER.read_tensors(tensors)
        if found is not None:
            config, own = found
            return PairEncoderSpec(kind=name, config=to_json(config)), own
    return None
