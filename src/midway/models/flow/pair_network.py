"""Optical flow network of an encoder with its own pretrained pair encoder, such as CroCo's."""

from dataclasses import dataclass, field
from typing import Self

import torch

from midway.config import to_json
from midway.errors import MidwayError
from midway.models.encoders.base import Encoder, EncoderSpec, Images, Map
from midway.models.flow.base import DptConfig, FlowModule, check_crop, check_dpt, dpt_head
from midway.models.pair_encoders.base import PairEncoder, PairEncoderSpec


@dataclass(frozen=True, kw_only=True)
class PairFlowConfig:
    """Kinds and sizes of the parts."""

    encoder: EncoderSpec
    pair_encoder: PairEncoderSpec
    dpt: DptConfig = field(default_factory=DptConfig)
    crop: tuple[int, int] = (320, 384)
    """Height and width in pixels of training crops and of tiles."""

    def __post_init__(self) -> None:
        check_dpt(self.dpt)
        if self.dpt.inputs != DptConfig().inputs:
            raise MidwayError(
                f"flow network: a {self.pair_encoder.kind} pair encoder has its own four maps; "
                "leave out --dpt.inputs"
            )


class PairFlowNetwork(FlowModule):
    """Network from two frames to flow and its uncertainty, through a pair encoder.

    One encoder sees both frames; all parts are finetuned through both.

    Raises:
        MidwayError: A kind is unknown, or the sizes of the parts do not fit each other.

    """

    def __init__(self, config: PairFlowConfig) -> None:
        super().__init__()
        self.config = config
        self.encoder = config.encoder.build(where="flow network")
        self.pair_encoder = config.pair_encoder.build(where="flow network")
        check_crop(config.crop, self.encoder.stride)
        self.head = dpt_head(self.pair_encoder.widths, config.dpt)

    @classmethod
    def from_pretrained(
        cls, encoder: Encoder, pair_encoder: PairEncoder, dpt: DptConfig, crop: tuple[int, int]
    ) -> Self:
        """Build from pretrained parts, with a fresh head and without drop path.

        Args:
            encoder: Source of the weights; unchanged.
            pair_encoder: Source of the weights; unchanged.
            dpt: Widths of the head.
            crop: Height and width of the training crops in pixels.

        Raises:
            MidwayError: The crop does not fit the encoder, or `dpt.inputs` is given.

        """
        made = cls(
            PairFlowConfig(
                encoder=EncoderSpec(kind=encoder.kind, config=to_json(encoder.config)),
                pair_encoder=PairEncoderSpec(
                    kind=pair_encoder.kind, config=to_json(pair_encoder.config)
                ),
                dpt=dpt,
                crop=crop,
            )
        )
        made.encoder.load_state_dict(encoder.state_dict())
        made.pair_encoder.load_state_dict(pair_encoder.state_dict())
        return made

    @property
    def between(self) -> PairEncoder:
        """The pair encoder."""
        return self.pair_encoder

    def maps(self, source: Images, target: Images) -> list[Map]:
        """Return the four maps of the pair encoder."""
        # (2 * batch, width, rows, columns) per level: sources, then targets
        features = self.encoder.maps(torch.cat([source, target]), self.pair_encoder.levels)
        # By slices, because tracing would make the size of chunks constant.
        batch = source.shape[0]
        sources, targets = [x[:batch] for x in features], [x[batch:] for x in features]
        return self.pair_encoder.maps(sources, targets)
