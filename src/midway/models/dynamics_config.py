"""Sizes of the dynamics, and the parts that ablations leave out."""

from dataclasses import dataclass
from typing import Literal

from midway.config import check_at_least, check_at_most
from midway.errors import MidwayError


@dataclass(frozen=True, kw_only=True)
class DynamicsConfig:
    """Sizes of the dynamics, and the ablations of the paper (tables 3 and 5)."""

    levels: tuple[int, ...] = (3, 6, 9)
    """Encoder levels of the objective, 1-based and rising."""
    latent_dynamics: bool = True
    """If True, infer motion latents for the forward model; else it sees the source only."""
    backward_layers: bool = True
    """If True, refine the source features top-down; else use the features of the level."""
    refinement: bool = True
    """If True, a lower level infers motion from the prediction of the level above; else from its
    backward features."""
    gates: bool = True
    gate_input: Literal["previous", "own"] = "previous"
    """Input of a block's gate: the input of the previous block (release) or of the block itself
    (eq. 2)."""
    midway_width: int = 192
    midway_depth: int = 4
    midway_heads: int = 3
    num_latents: int = 10
    correlation_radius: int = 0
    """Patches to each side of the window of `LocalCorrelation`, an input of the midway path; 0 for
    none, as in the paper."""
    backward_heads: int = 6
    forward_depth: int = 4
    forward_heads: int = 6

    init_std: float = 0.02
    """Standard deviation of the initial weights of linear layers."""
    starts_matching: bool = False
    """If True, use mimetic initialisation (`midway.nn.mimetic`), unlike the paper."""

    def __post_init__(self) -> None:
        sizes = ("midway_width", "midway_depth", "midway_heads", "num_latents", "forward_depth")
        heads = ("backward_heads", "forward_heads")
        check_at_least("dynamics", self, **dict.fromkeys(sizes + heads, 1))
        check_at_least("dynamics", self, correlation_radius=0)
        most = {"midway_width": 2**16, "num_latents": 4096, "correlation_radius": 16}
        check_at_most("dynamics", self, midway_depth=32, forward_depth=32, **most)
        rising = sorted({level for level in self.levels if level >= 1})
        if not self.levels or list(self.levels) != rising:
            raise MidwayError(f"dynamics: levels {self.levels} must rise from 1; give each once")
        if self.midway_width % self.midway_heads:
            raise MidwayError(
                f"dynamics: midway_width {self.midway_width} is not a multiple of midway_heads "
                f"{self.midway_heads}; change one"
            )
        if self.starts_matching and self.midway_width % 4:
            raise MidwayError(
                f"dynamics: midway_width {self.midway_width} is not a multiple of 4, which the "
                "positions of starts_matching need; change one"
            )
