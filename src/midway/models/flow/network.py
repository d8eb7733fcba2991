"""Optical flow network: encoder, dynamics and a DPT head (paper, section 4.1, appendix B.4)."""

import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Literal, Self

import torch
from jaxtyping import Float
from torch import Tensor, nn

from midway.config import from_json, to_json
from midway.errors import MidwayError
from midway.models.dynamics import Dynamics, DynamicsConfig, LevelOutput
from midway.models.encoders.base import Encoder
from midway.models.encoders.timm import TimmEncoder
from midway.models.encoders.vit import EncoderConfig, VisionTransformer
from midway.models.heads.dpt import DptHead, to_map
from midway.models.midway import MidwayNetwork, NetworkConfig
from midway.models.weights.files import open_safetensors
from midway.models.weights.save import write_safetensors

FlowInput = Literal["source", "midway_top", "midway_bottom", "forward_top", "forward_bottom"]
"""Input of the head: the top encoder level of the source, the target tokens of the midway path, or
the forward prediction; top and bottom are objective levels (9 and 3 in the paper)."""
HEADER = "midway_flow"
BEST, LAST = "best.safetensors", "last.safetensors"
"""Files of a finetuned network in the folder of its run."""


@dataclass(frozen=True, kw_only=True)
class DptConfig:
    """Inputs and widths of the DPT head, finest scale first."""

    inputs: tuple[FlowInput, FlowInput, FlowInput, FlowInput] = (
        "source",
        "midway_top",
        "forward_top",
        "forward_bottom",
    )
    """In the order of the paper, which does not state their scales."""
    widths: tuple[int, int, int, int] = (96, 192, 384, 768)
    fused_width: int = 256
    last_width: int = 32


@dataclass(frozen=True, kw_only=True)
class FlowNetworkConfig:
    """Sizes of the whole network; the defaults are the published ViT-S and the head of CroCo v2."""

    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    timm: str = ""
    """Name of a timm model as encoder, with the sizes in `encoder`; our ViT if empty."""
    dynamics: DynamicsConfig = field(default_factory=DynamicsConfig)
    dpt: DptConfig = field(default_factory=DptConfig)
    crop: tuple[int, int] = (320, 384)
    """Height and width in pixels of training crops and of tiles."""

    def __post_init__(self) -> None:
        # Checks that the dynamics fit the encoder.
        NetworkConfig(encoder=self.encoder, dynamics=self.dynamics)
        (height, width), patches = self.crop, 2 * self.encoder.patch_size
        if height % patches or width % patches:
            raise MidwayError(
                f"flow network: a crop of {height}x{width} pixels is not a multiple of two patches "
                f"of {self.encoder.patch_size}; give one like --data.crop "
                f"{max(1, height // patches) * patches} {max(1, width // patches) * patches}"
            )
        midway = [name for name in self.dpt.inputs if name.startswith("midway")]
        if midway and not self.dynamics.latent_dynamics:
            raise MidwayError(
                f"flow network: no {midway[0]} without latent dynamics; give dpt.inputs other names"
            )


class FlowNetwork(nn.Module):
    """Network from two frames to flow and its uncertainty.

    One encoder sees both frames, and the dynamics serve as their own teacher, so that all parts
    are finetuned through both frames.
    """

    def __init__(self, config: FlowNetworkConfig) -> None:
        super().__init__()
        self.config = config
        width = config.encoder.width
        self.encoder = (
            TimmEncoder(config.timm, pretrained=False)
            if config.timm
            else VisionTransformer(config.encoder)
        )
        self.dynamics = Dynamics(width, config.encoder.grid, config.dynamics)
        self.head = DptHead(
            [
                config.dynamics.midway_width if name.startswith("midway") else width
                for name in config.dpt.inputs
            ],
            widths=config.dpt.widths,
            fused_width=config.dpt.fused_width,
            last_width=config.dpt.last_width,
            num_outputs=3,
        )
        self.is_frozen = False

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

        Args:
            network: Source of the weights; unchanged.
            dpt: Sizes of the head.
            crop: Height and width of the training crops in pixels.
            encoder: Encoder of the student or of the EMA teacher.
            fresh_dynamics: If True, draw the dynamics anew ("encoder only" in the paper).
        """
        config = FlowNetworkConfig(
            encoder=replace(network.config.encoder, drop_path=0.0),
            dynamics=network.config.dynamics,
            dpt=dpt,
            crop=crop,
        )
        made = cls(config)
        from_teacher = encoder == "teacher"
        chosen = network.teacher.encoder if from_teacher else network.encoder
        made.encoder.load_state_dict(chosen.state_dict())
        if not fresh_dynamics:
            made.dynamics.load_state_dict(network.dynamics.state_dict())
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
            MidwayError: The encoder is not a transformer, or dynamics or crop do not fit it.
        """
        if not isinstance(encoder, VisionTransformer | TimmEncoder):
            raise MidwayError(
                f"flow network: the dynamics need tokens of one width, which a {encoder.kind} does "
                "not have; take a ViT"
            )
        is_timm = isinstance(encoder, TimmEncoder)
        made = cls(
            FlowNetworkConfig(
                encoder=replace(encoder.sizes if is_timm else encoder.config, drop_path=0.0),
                timm=encoder.config.name if is_timm else "",
                dynamics=dynamics,
                dpt=dpt,
                crop=crop,
            )
        )
        made.encoder.load_state_dict(encoder.state_dict())
        return made

    def freeze(self) -> None:
        """Freeze encoder and dynamics, so that only the head is trained."""
        self.is_frozen = True
        for part in (self.encoder, self.dynamics):
            part.requires_grad_(False)
        self.train(self.training)

    def train(self, mode: bool = True) -> Self:
        """Set the training mode; frozen parts remain in evaluation mode."""
        super().train(mode)
        if self.is_frozen:
            self.encoder.eval()
            self.dynamics.eval()
        return self

    def forward(
        self,
        source: Float[Tensor, "batch 3 height width"],
        target: Float[Tensor, "batch 3 height width"],
    ) -> Float[Tensor, "batch 3 height width"]:
        """Return flow from source to target in pixels (u right, v down), and raw uncertainty.

        Both frames are ImageNet-normalised, and their sides multiples of two patches. Position
        tables are resampled to their size.
        """
        outputs, top = self._predict(source, target)
        grid = self._grid(source)
        # Four maps of (batch, width, rows, columns); widths differ between encoder and midway path.
        maps = [to_map(self._tokens(name, outputs, top), grid) for name in self.config.dpt.inputs]
        return self.head(maps, (source.shape[-2], source.shape[-1]))

    def _predict(self, source: Tensor, target: Tensor) -> tuple[dict[int, LevelOutput], Tensor]:
        """Return the outputs of the dynamics by level, and the top-level features of the source."""
        # Frozen parts keep no activations for the backward pass.
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.is_frozen):
            levels = (*self.config.dynamics.levels, self.config.encoder.depth)
            # (2 * batch, 1 + patches, dim) per level: sources, then targets
            features = self.encoder.levels(torch.cat([source, target]), levels)
            sources, targets = zip(*(level.chunk(2) for level in features), strict=True)
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
        patch = self.config.encoder.patch_size
        return images.shape[-2] // patch, images.shape[-1] // patch


def save_flow_network(network: FlowNetwork, path: Path) -> None:
    """Write a network as `.safetensors` with its configuration in the header."""
    encoders = {"encoder": network.encoder}
    write_safetensors(network, path, {HEADER: to_json(network.config)}, encoders)


def load_flow_network(path: Path | str) -> FlowNetwork:
    """Load a network from a `.safetensors` file or the best of a run folder, in evaluation mode.

    Raises:
        MidwayError: There is no such file, or it does not contain a flow network.
    """
    file = Path(path) / BEST if Path(path).is_dir() else Path(path)
    if not file.is_file():
        raise MidwayError(f"{file}: no such file; give the folder of a finetuning or its {BEST}")
    metadata, tensors = open_safetensors(file)
    header = metadata.get(HEADER)
    if header is None:
        raise MidwayError(
            f"{file}: contains no flow network; finetune one with `midway eval flow_finetune`"
        )
    network = FlowNetwork(from_json(FlowNetworkConfig, json.loads(header), where=str(file)))
    network.load_state_dict(tensors)
    return network.eval()
