"""Optical flow network: encoder, dynamics and a DPT head (paper, section 4.1, appendix B.4)."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Literal, Self

import torch
from torch import Tensor

from midway.config import from_json, to_json
from midway.errors import MidwayError
from midway.models.dynamics import Dynamics, DynamicsConfig, LevelOutput
from midway.models.encoders.base import Encoder, EncoderSpec, Images, Map, patch_grid
from midway.models.encoders.timm import TimmEncoder
from midway.models.encoders.vit import EncoderConfig, VisionTransformer
from midway.models.flow.base import (
    DptConfig,
    FlowInput,
    FlowModule,
    check_crop,
    check_dpt,
    dpt_head,
)
from midway.models.flow.pair_network import PairFlowConfig, PairFlowNetwork
from midway.models.heads.dpt import to_map
from midway.models.midway import MidwayNetwork, NetworkConfig
from midway.models.weights.check import check_tensors, meta_state
from midway.models.weights.files import FLOW, open_safetensors, parse_header
from midway.models.weights.save import write_safetensors

BEST, LAST = "best.safetensors", "last.safetensors"
"""Files of a finetuned network in the folder of its run."""


@dataclass(frozen=True, kw_only=True)
class FlowNetworkConfig:
    """Sizes of the whole network; the defaults are the published ViT-S and the head of CroCo v2."""

    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    timm: str = ""
    """Name of a timm model as encoder, with the sizes in `encoder`; our ViT if empty."""
    other: EncoderSpec | None = None
    """Encoder of another kind, with the sizes in `encoder`."""
    dynamics: DynamicsConfig = field(default_factory=DynamicsConfig)
    dpt: DptConfig = field(default_factory=DptConfig)
    crop: tuple[int, int] = (320, 384)
    """Height and width in pixels of training crops and of tiles."""

    def __post_init__(self) -> None:
        # Checks that the dynamics fit the encoder.
        NetworkConfig(encoder=self.encoder, dynamics=self.dynamics)
        check_dpt(self.dpt)
        check_crop(self.crop, self.encoder.patch_size)
        midway = [name for name in self.dpt.inputs if name.startswith("midway")]
        if midway and not self.dynamics.latent_dynamics:
            raise MidwayError(
                f"flow network: no {midway[0]} without latent dynamics; give dpt.inputs other names"
            )


class FlowNetwork(FlowModule):
    """Network from two frames to flow and its uncertainty, through the dynamics.

    One encoder sees both frames, and the dynamics serve as their own teacher, so that all parts
    are finetuned through both frames.
    """

    def __init__(self, config: FlowNetworkConfig) -> None:
        super().__init__()
        self.config = config
        width = config.encoder.width
        self.encoder = _built(config)
        self.dynamics = Dynamics(width, config.encoder.grid, config.dynamics)
        in_widths = [
            config.dynamics.midway_width if name.startswith("midway") else width
            for name in config.dpt.inputs
        ]
        self.head = dpt_head(in_widths, config.dpt)

    @property
    def between(self) -> Dynamics:
        """The dynamics."""
        return self.dynamics

    @classmethod
    def from_pretrained(
        cls,
        network: MidwayNetwork,
        dpt: DptConfig,
        crop: tuple[int, int],
        *,
        encoder: Literal["student", "teacher"] = "student",
        fresh_dynamics: bool = False,
    ) -> Self:
        """Build from a pretrained network, with a fresh head and without drop path.

        A network without latent dynamics (table 3, row 1) gets a fresh midway path.

        Args:
            network: Source of the weights; unchanged.
            dpt: Sizes of the head.
            crop: Height and width of the training crops in pixels.
            encoder: Encoder of the student or of the EMA teacher.
            fresh_dynamics: If True, initialise the dynamics afresh ("encoder only" in the paper).
        """
        config = FlowNetworkConfig(
            encoder=replace(network.config.encoder, drop_path=0.0),
            dynamics=replace(network.config.dynamics, latent_dynamics=True),
            dpt=dpt,
            crop=crop,
        )
        made = cls(config)
        from_teacher = encoder == "teacher"
        chosen = network.teacher.encoder if from_teacher else network.encoder
        made.encoder.load_state_dict(chosen.state_dict())
        if not fresh_dynamics:
            found = network.dynamics.state_dict()
            # Only a midway path may be missing, and only if the network has none.
            made.dynamics.load_state_dict(found, strict=network.config.dynamics.latent_dynamics)
        return made

    @classmethod
    def from_encoder(
        cls,
        encoder: Encoder,
        dynamics: DynamicsConfig,
        dpt: DptConfig,
        crop: tuple[int, int],
    ) -> Self:
        """Build from a pretrained encoder, with fresh dynamics and head and without drop path.

        The paper finetunes encoders of other methods in this way (section 4.1).

        Args:
            encoder: Source of the weights; unchanged.
            dynamics: Sizes of the dynamics.
            dpt: Sizes of the head.
            crop: Height and width of the training crops in pixels.

        Raises:
            MidwayError: The maps of the encoder's levels differ in width or stride, or dynamics or
                crop do not fit it.
        """
        sizes = _sizes_for_dynamics(encoder, crop)
        is_other = not isinstance(encoder, VisionTransformer | TimmEncoder)
        spec = EncoderSpec(kind=encoder.kind, config=to_json(encoder.config))
        made = cls(
            FlowNetworkConfig(
                encoder=replace(sizes, drop_path=0.0),
                timm=encoder.config.name if isinstance(encoder, TimmEncoder) else "",
                other=spec if is_other else None,
                dynamics=dynamics,
                dpt=dpt,
                crop=crop,
            )
        )
        made.encoder.load_state_dict(encoder.state_dict())
        return made

    def maps(self, source: Images, target: Images) -> list[Map]:
        """Return the maps that `DptConfig.inputs` names."""
        outputs, top = self._predict(source, target)
        grid = self._grid(source)
        return [to_map(self._tokens(name, outputs, top), grid) for name in self.config.dpt.inputs]

    def _predict(self, source: Tensor, target: Tensor) -> tuple[dict[int, LevelOutput], Tensor]:
        """Return the outputs of the dynamics by level, and the top-level features of the source."""
        levels = (*self.config.dynamics.levels, self.config.encoder.depth)
        # (2 * batch, 1 + patches, dim) per level: sources, then targets
        features = _tokens_of(self.encoder, torch.cat([source, target]), levels)
        # By slices, because tracing would make the size of chunks constant.
        batch = source.shape[0]
        sources, targets = [x[:batch] for x in features], [x[batch:] for x in features]
        outputs = self.dynamics(sources, targets, self.dynamics, self._grid(source))
        return outputs, sources[-1]

    def _tokens(self, name: FlowInput, outputs: dict[int, LevelOutput], top: Tensor) -> Tensor:
        if name == "source":
            return top
        kind, _, place = name.partition("_")
        level = outputs[self.config.dynamics.levels[-1 if place == "top" else 0]]
        if kind == "forward":
            return level.prediction
        # [latents; source; target] -> target, (batch, 1 + patches, midway_width)
        frames = level.midway_tokens[:, level.motion_latents.shape[1] :]
        return frames.chunk(2, dim=1)[1]

    def _grid(self, images: Tensor) -> tuple[int, int]:
        return patch_grid(images, self.config.encoder.patch_size)


def save_flow_network(network: FlowModule, path: Path) -> None:
    """Write a network as `.safetensors` with its configuration in the header."""
    encoders = {"encoder": network.encoder}
    write_safetensors(network, path, {FLOW: to_json(network.config)}, encoders)


def flow_config(file: Path, header: str) -> FlowNetworkConfig | PairFlowConfig:
    """Return the sizes of a flow network from the header of its file.

    Raises:
        MidwayError: The sizes are not JSON, or not valid.

    """
    values = parse_header(file, header)
    kind = PairFlowConfig if "pair_encoder" in values else FlowNetworkConfig
    try:
        return from_json(kind, values, where="its sizes")
    except MidwayError as error:
        raise MidwayError(f"{file}: {' '.join(str(error).split())}") from None


def flow_file(path: Path | str) -> Path:
    """Return the file of a flow network: the best of a run folder, or the given one."""
    return Path(path) / BEST if Path(path).is_dir() else Path(path)


def load_flow_network(path: Path | str) -> FlowModule:
    """Load a network from a `.safetensors` file or the best of a run folder, in evaluation mode.

    Raises:
        MidwayError: There is no such file, or it does not contain a flow network.
    """
    file = flow_file(path)
    if not file.is_file():
        raise MidwayError(f"{file}: no such file; give the folder of a finetuning or its {BEST}")
    metadata, tensors = open_safetensors(file)
    header = metadata.get(FLOW)
    if header is None:
        raise MidwayError(
            f"{file}: contains no flow network; finetune one with `midway eval flow_finetune`"
        )
    config = flow_config(file, header)
    build = partial(_of_config, config, file)
    # A model of timm cannot be built without memory; its name bounds its size.
    made = build() if isinstance(config, FlowNetworkConfig) and config.timm else None
    state = meta_state(build) if made is None else made.state_dict()
    check_tensors(state, tensors, where=str(file), what="the flow network")
    network = made or build()
    network.load_state_dict(tensors)
    return network.eval()


def _of_config(config: FlowNetworkConfig | PairFlowConfig, file: Path) -> FlowModule:
    try:
        is_pair = isinstance(config, PairFlowConfig)
        return PairFlowNetwork(config) if is_pair else FlowNetwork(config)
    except MidwayError as error:
        raise MidwayError(f"{file}: {error}") from None


def _built(config: FlowNetworkConfig) -> Encoder:
    if config.timm:
        return TimmEncoder(config.timm, pretrained=False)
    if config.other is not None:
        return config.other.build(where="flow network")
    return VisionTransformer(config.encoder)


def _sizes_for_dynamics(encoder: Encoder, crop: tuple[int, int]) -> EncoderConfig:
    """Return the sizes of an encoder as the dynamics see them.

    Raises:
        MidwayError: The maps of its levels differ in width or stride.

    """
    if isinstance(encoder, VisionTransformer):
        return encoder.config
    if isinstance(encoder, TimmEncoder):
        return encoder.sizes
    levels = range(1, encoder.depth + 1)
    if len({*encoder.widths(levels)}) > 1 or len({*encoder.strides(levels)}) > 1:
        raise MidwayError(
            f"flow network: the levels of a {encoder.kind} differ in width or stride, and the "
            "dynamics need tokens of one size; take a ViT"
        )
    check_crop(crop, encoder.stride)
    # The position table of the dynamics has the size of the crops, as other encoders may have none.
    return EncoderConfig(
        image_size=crop,
        patch_size=encoder.stride,
        width=encoder.width,
        depth=encoder.depth,
        heads=1,
    )


def _tokens_of(encoder: Encoder, images: Images, levels: Sequence[int]) -> list[Tensor]:
    """Return the tokens of the given levels, class token first, (batch, 1 + patches, dim) each."""
    if isinstance(encoder, VisionTransformer | TimmEncoder):
        return encoder.levels(images, levels)
    # The dynamics expect a class token; the mean of the patches stands for it.
    found = [each.flatten(2).transpose(1, 2) for each in encoder.maps(images, levels)]
    return [torch.cat([x.mean(1, keepdim=True), x], dim=1) for x in found]
