"""Colours are the principal components, and a video shows them where its tokens are."""

from pathlib import Path

import av
import numpy as np
import pytest
import torch

from midway.analysis.inputs import fit
from midway.analysis.lettering import letter_pixels
from midway.analysis.token_colours import fit_colours, write_token_video
from midway.errors import MidwayError
from tests.models.networks import random_network


def test_colours_are_the_principal_components_that_numpy_finds():
    rng = np.random.default_rng(0)
    tokens = rng.normal(size=(200, 12)) * np.arange(1, 13) + 5
    colours = fit_colours(torch.from_numpy(tokens))
    centred = tokens - tokens.mean(0)
    _, sizes, directions = np.linalg.svd(centred, full_matrices=False)
    for place in range(3):
        axis = directions[place] * np.sign(directions[place][np.abs(directions[place]).argmax()])
        np.testing.assert_allclose(colours.axes[:, place], axis, atol=1e-6)
        share = centred @ axis / (2 * sizes[place] / np.sqrt(200))
        expected = 255 * (np.clip(share, -1, 1) + 1) / 2
        assert np.abs(colours(torch.from_numpy(tokens))[:, place] - expected).max() <= 0.51


def test_tokens_that_are_all_alike_have_the_colour_in_the_middle():
    alike = torch.ones(6, 8)
    assert np.isin(fit_colours(alike)(alike), (127, 128)).all()


def test_a_video_shows_frames_beside_their_features_above_the_latents(tmp_path: Path):
    torch.manual_seed(0)
    network, path = random_network(), tmp_path / "tokens.mp4"
    generator = torch.Generator().manual_seed(0)
    small = torch.randint(0, 256, (4, 3, 4, 5), generator=generator, dtype=torch.uint8)
    frames = small.repeat_interleave(32, 2).repeat_interleave(32, 3)  # 128 x 160 pixels
    write_token_video(network, frames, 5, path, level=3)
    with av.open(str(path)) as container:
        shown = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
    # Enlarged twice, below the caption of each image; three rows of latents with captions follow.
    bar = round(1.6 * letter_pixels(256))
    assert {frame.shape[1] for frame in shown} == {2 * 320 + 4}
    assert all(len(frame) > bar + 256 + 3 * round(0.06 * 256) for frame in shown)
    images = fit(frames, network).images
    with torch.no_grad():
        outputs = [
            network(images[n : n + 1], images[n + 1 : n + 2]).levels[3].target[0, 1:]
            for n in range(3)
        ]
    colours = fit_colours(torch.cat(outputs))
    for frame, image, tokens in zip(shown, frames[1:], outputs, strict=True):
        half = frame[bar : bar + 256 : 2, ::2]
        assert np.abs(half[:, :160].astype(int) - image.permute(1, 2, 0).numpy()).mean() < 12
        middles = frame[bar + 32 : bar + 256 : 64, 320 + 4 + 32 :: 64].astype(int)
        assert np.abs(middles - colours(tokens).reshape(4, 5, 3)).mean() < 12


def test_a_level_without_forward_model_is_told(tmp_path: Path):
    frames = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
    with pytest.raises(MidwayError, match="level 4 has no forward model"):
        write_token_video(random_network(), frames, 5, tmp_path / "x.mp4", level=4)
    with pytest.raises(MidwayError, match="a video of 1 frame has no motion"):
        write_token_video(random_network(), frames[:1], 5, tmp_path / "x.mp4", level=3)
    assert not list(tmp_path.iterdir())
