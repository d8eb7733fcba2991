"""Videos of features and motion latents, coloured by their first three principal components."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from midway.analysis.dynamics_video import check_length, pair_output, pair_outputs
from midway.analysis.inputs import fit
from midway.analysis.lettering import enlarged, side_by_side, whole_factor
from midway.analysis.perturbation import check_level
from midway.analysis.tracking import Frames
from midway.data.video.writer import writing_video
from midway.models.midway import MidwayNetwork

FITTED_PAIRS = 32
"""Number of frame pairs that the components are fitted to, evenly spaced over the video."""
CELL_SHARE = 0.06
"""Height of a row of motion latents, as a share of the height of a frame."""
REACH = 2.0
"""Range of the colours in standard deviations from the mean, in both directions."""


@dataclass(frozen=True, kw_only=True)
class TokenColours:
    """Map from tokens to colours, fitted once per video."""

    mean: Float[Tensor, " dim"]
    axes: Float[Tensor, "dim 3"]
    """Principal directions, with the sign for which the entry of largest magnitude is positive."""
    deviations: Float[Tensor, "3"]
    """Standard deviations along the axes."""

    def __call__(self, tokens: Float[Tensor, "*tokens dim"]) -> NDArray[np.uint8]:
        """Map tokens (*tokens, dim) to RGB bytes (*tokens, 3)."""
        shares = (tokens.double().cpu() - self.mean) @ self.axes / (REACH * self.deviations)
        return (255 * (shares.clamp(-1, 1) + 1) / 2).round().byte().numpy()


def fit_colours(tokens: Float[Tensor, "tokens dim"]) -> TokenColours:
    """Fit colours to the principal components of at least four tokens."""
    tokens = tokens.double().cpu()
    mean = tokens.mean(0)
    variances, directions = torch.linalg.eigh((tokens - mean).T @ (tokens - mean) / len(tokens))
    axes = directions[:, -3:].flip(1)
    largest = axes.gather(0, axes.abs().argmax(0, keepdim=True))
    deviations = variances[-3:].flip(0).clamp(min=1e-12).sqrt()
    return TokenColours(mean=mean, axes=axes * largest.sign(), deviations=deviations)


def write_token_video(
    network: MidwayNetwork,
    frames: Frames,
    fps: float,
    path: Path,
    *,
    level: int,
    short_side: int = 0,
) -> None:
    """Write a video of each frame but the first beside its features at a level.

    Below them are the motion latents from the preceding frame to this one, with one row per level,
    the highest first, and one cell per latent. Colours are the first three principal components
    over the video, fitted separately to the features and to the latents of each level.

    Args:
        network: Network; the features are those of the teacher, which the dynamics predict.
        frames: At least two frames of a video.
        fps: Frame rate of the written video.
        path: File to write, with one of `WRITTEN_VIDEO_SUFFIXES`.
        level: Level of the features.
        short_side: Shorter side of the network's input in pixels, see `fit`.

    Raises:
        MidwayError: The level has no forward model, or there are fewer than two frames.

    """
    check_level(network, level)
    check_length(frames)
    spread = np.linspace(0, len(frames) - 2, FITTED_PAIRS)
    found = [
        pair_output(network, frames, number, short_side=short_side)
        for number in np.unique(spread.round().astype(int)).tolist()
    ]
    features = fit_colours(torch.cat([each[level].target[0, 1:] for each in found]))
    latents = {
        each: fit_colours(torch.cat([output[each].motion_latents[0] for output in found]))
        for each in reversed(network.config.dynamics.levels)
        if network.config.dynamics.latent_dynamics
    }
    with writing_video(path, fps) as write:
        for number, levels in pair_outputs(network, frames, short_side=short_side):
            frame = frames[number + 1]
            grid = fit(frame[None], network, short_side=short_side).grid
            image = frame.permute(1, 2, 0).cpu().numpy()
            patches = features(levels[level].target[0, 1:].unflatten(0, grid))
            rows = {
                f"motion latents, level {each}": colours(levels[each].motion_latents[0])[None]
                for each, colours in latents.items()
            }
            write(_composed(image, patches, rows))


def _composed(
    image: NDArray[np.uint8], patches: NDArray[np.uint8], rows: Mapping[str, NDArray[np.uint8]]
) -> NDArray[np.uint8]:
    """Compose a frame: image and patches side by side, with the rows of latents below them."""
    image = enlarged(image, whole_factor(image))
    height, width = image.shape[:2]
    colours = _enlarged(patches, (width, height))
    whole = side_by_side([("frame", image), ("features", colours)])
    for name, row in rows.items():
        cells = _enlarged(row, (whole.shape[1], max(1, round(CELL_SHARE * height))))
        whole = np.concatenate([whole, side_by_side([(name, cells)])])
    return whole


def _enlarged(cells: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Upsample cells (rows, columns, 3) to `size` (width, height) by nearest neighbour."""
    return np.asarray(Image.fromarray(cells).resize(size, Image.Resampling.NEAREST))
