"""Action-conditioned forward model: the next frame's features from this frame's and an action.

It is the forward model of the dynamics with an action in the place of the inferred motion latents.
A state is the features of a frame at one level, layer-normalised, so that a predicted state can be
the input of the next prediction.
"""

from collections.abc import Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.nn import functional as F

from midway.config import check_at_least, check_at_most
from midway.errors import MidwayError
from midway.models.dynamics import DynamicsConfig, ForwardDynamics
from midway.models.encoders.base import Encoder
from midway.models.encoders.vit import EncoderConfig, VisionTransformer
from midway.nn.blocks import Block, init_transformer
from midway.nn.ema import update_ema
from midway.nn.linear import Linear
from midway.nn.mimetic import start_carrying, start_comparing

State = Float[Tensor, "batch tokens dim"]
Actions = Float[Tensor, "batch action"]


@dataclass(frozen=True, kw_only=True)
class ActionNetworkConfig:
    """Sizes of the network; the defaults have the encoder and the forward model of the paper."""

    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    level: int = 12
    """Encoder level of the states, 1-based."""
    action_size: int = 2
    """Numbers of an action, in the order of the signal `action`."""
    num_tokens: int = 1
    """Tokens that an action becomes; they stand where the dynamics have motion latents."""
    hidden: int = 128
    """Hidden channels of the MLP from the action to its tokens."""
    forward_depth: int = 4
    forward_heads: int = 6
    init_std: float = 0.02
    """Standard deviation of the initial weights of linear layers."""
    starts_matching: bool = False
    """If True, use mimetic initialisation (`midway.nn.mimetic`)."""

    def __post_init__(self) -> None:
        sizes = ("level", "action_size", "num_tokens", "hidden", "forward_depth", "forward_heads")
        check_at_least("network", self, **dict.fromkeys(sizes, 1))
        check_at_most("network", self, forward_depth=32, hidden=2**16, num_tokens=4096)
        check_at_most("network", self, action_size=4096)
        if self.level > self.encoder.depth:
            raise MidwayError(
                f"network: level {self.level} lies above the encoder's {self.encoder.depth} "
                "blocks; give a lower one"
            )
        if self.encoder.width % self.forward_heads:
            raise MidwayError(
                f"network: forward_heads {self.forward_heads} does not divide the encoder's width "
                f"{self.encoder.width}; change one"
            )


class ActionNetwork(nn.Module):
    """Encoder, its EMA teacher, and the forward model between their states."""

    def __init__(self, config: ActionNetworkConfig) -> None:
        super().__init__()
        self.config, dim = config, config.encoder.width
        self.encoder = VisionTransformer(config.encoder)
        self.teacher = deepcopy(self.encoder).requires_grad_(False).eval()
        self.act = nn.Sequential(
            Linear(config.action_size, config.hidden),
            nn.GELU(),
            Linear(config.hidden, config.num_tokens * dim),
            nn.Unflatten(1, (config.num_tokens, dim)),
        )
        sizes = DynamicsConfig(
            forward_depth=config.forward_depth, forward_heads=config.forward_heads
        )
        self.forward_model = ForwardDynamics(dim, sizes)
        init_transformer(self.forward_model, config.init_std)
        if config.starts_matching:
            blocks = [part for part in self.forward_model.modules() if isinstance(part, Block)]
            # As in the dynamics: the first block compares tokens, all copy what they attend to.
            start_comparing(blocks[0].attn)
            for block in blocks:
                start_carrying(block.attn)

    def train(self, mode: bool = True) -> "ActionNetwork":
        """Set the mode of all parts but the teacher, which has no drop path."""
        super().train(mode)
        self.teacher.eval()
        return self

    @property
    def encoders(self) -> Mapping[str, Encoder]:
        """Encoders of the student and of the EMA teacher."""
        return {"student": self.encoder, "teacher": self.teacher}

    def state(self, images: Float[Tensor, "batch 3 height width"]) -> State:
        """Return the student's state of frames: the class token, then the patches."""
        return _normalised(self.encoder.levels(images, (self.config.level,))[0])

    @torch.no_grad()
    def target(self, images: Float[Tensor, "batch 3 height width"]) -> State:
        """Return the teacher's state of frames, which the forward model predicts."""
        return _normalised(self.teacher.levels(images, (self.config.level,))[0])

    def step(self, state: State, action: Actions) -> State:
        """Predict the state after an action."""
        predicted, _ = self.forward_model(state, self.act(action))
        return _normalised(predicted)

    def roll_out(self, state: State, actions: Iterable[Actions]) -> list[State]:
        """Predict the states after each of several actions in a row."""
        found = []
        for action in actions:
            state = self.step(state, action)
            found.append(state)
        return found

    def update_teacher(self, momentum: float) -> None:
        """Update the teacher by the EMA of the student."""
        update_ema(self.teacher.parameters(), self.encoder.parameters(), momentum)


def _normalised(features: State) -> State:
    return F.layer_norm(features, features.shape[-1:])
