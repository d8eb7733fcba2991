"""Inputs of encoders: every kind of image gives the same tensor; bad ones are refused."""

from fractions import Fraction

import av
import numpy as np
import pytest
import torch
from PIL import Image

import midway
from midway.errors import MidwayError
from midway.models.encoders.vit import EncoderConfig, VisionTransformer
from midway.models.midway import MidwayNetwork
from midway.models.transform import transform
from midway.nn.images import IMAGENET_MEAN, IMAGENET_STD
from tests.models.networks import tiny

ENCODER = VisionTransformer(
    EncoderConfig(image_size=(32, 32), patch_size=8, width=24, depth=1, heads=2)
)
PICTURE = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)


class Frames:
    """Frames as torchcodec returns them."""

    def __init__(self, data):
        self.data = data


def test_every_kind_of_image_gives_the_same_tensor():
    assert midway.transform is transform
    convert, tensor = transform(ENCODER), torch.from_numpy(PICTURE).permute(2, 0, 1)
    expected = convert(PICTURE)
    assert expected.shape == (3, 32, 32)
    assert expected.dtype == torch.float32
    frame = av.VideoFrame.from_ndarray(PICTURE, format="rgb24")
    frame.time_base = Fraction(1, 25)
    for same in (Image.fromarray(PICTURE), tensor, frame, Frames(tensor)):
        torch.testing.assert_close(convert(same), expected, atol=0, rtol=0)
    for close in (PICTURE / 255, (PICTURE / 255).astype(np.float32), tensor / 255):
        torch.testing.assert_close(convert(close), expected, atol=1e-5, rtol=0)


def test_batches_videos_and_lists_keep_their_dimensions():
    convert, expected = transform(ENCODER), transform(ENCODER)(PICTURE)
    video = np.stack([PICTURE] * 3)
    for batch, shape in (
        (video, (3,)),
        (torch.from_numpy(np.stack([video] * 2)).movedim(-1, -3), (2, 3)),
        ([Image.fromarray(PICTURE), PICTURE[:, :-4]], (2,)),
        ([video, video], (2, 3)),
    ):
        found = convert(batch)
        assert found.shape == (*shape, 3, 32, 32)
        torch.testing.assert_close(found.flatten(0, -4)[0], expected)


def test_a_constant_image_is_normalised_and_the_centre_is_cropped():
    colour = torch.tensor([0.2, 0.4, 0.6])[:, None, None].expand(3, 50, 50)
    wanted = (colour[:, 0, 0] - torch.tensor(IMAGENET_MEAN)) / torch.tensor(IMAGENET_STD)
    torch.testing.assert_close(transform(ENCODER)(colour)[:, 5, 7], wanted)
    # A white frame of two pixels lies in the margin that the crop leaves out.
    framed = torch.zeros(3, 37, 37)
    framed[:, [0, 1, -2, -1]] = 1
    framed[:, :, [0, 1, -2, -1]] = 1
    found = transform(ENCODER)(framed)
    torch.testing.assert_close(found, found[:, 16:17, 16:17].expand(3, 32, 32))


def test_without_a_crop_the_whole_image_is_resized_to_multiples_of_the_stride():
    assert transform(ENCODER, crop=False)(PICTURE).shape == (3, 32, 48)
    assert transform(ENCODER, size=64, crop=False)(PICTURE).shape == (3, 64, 96)
    assert transform(ENCODER, size=(16, 64))(PICTURE).shape == (3, 16, 64)


def test_a_photograph_is_turned_as_its_camera_was(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter turn to the right
    Image.fromarray(PICTURE).save(tmp_path / "photo.png", exif=exif)
    turned = transform(ENCODER)(Image.open(tmp_path / "photo.png"))
    upright = np.ascontiguousarray(np.rot90(PICTURE, -1))
    torch.testing.assert_close(turned, transform(ENCODER)(upright))


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (np.zeros((40, 60), np.uint8), "shape (40, 60); give an array (..., height, width, 3)"),
        (torch.zeros(40, 60, 3), "shape (40, 60, 3); give a tensor (..., 3, height, width)"),
        (np.zeros((40, 60, 3), np.int64), "values are torch.int64; give uint8"),
        (np.full((40, 60, 3), 2.0), "floats are not from 0 to 1; divide them"),
        (np.full((40, 60, 3), np.nan), "floats are not from 0 to 1; divide them"),
        ([], "0 sizes in a list of 0"),
        ("picture.png", "is no image; give one of PIL, numpy or torch"),
    ],
)
def test_other_input_is_refused_in_one_line(images, message):
    with pytest.raises(MidwayError) as caught:
        transform(ENCODER)(images)
    assert message in str(caught.value)


def test_a_network_has_the_input_of_its_encoder():
    network = MidwayNetwork(tiny())
    assert transform(network) == transform(network.encoder)


def test_other_sizes_are_refused():
    with pytest.raises(MidwayError, match="2 sizes in a list of 2; give images of one size"):
        transform(ENCODER, crop=False)([PICTURE, PICTURE[:, :40]])
    with pytest.raises(MidwayError, match="size 30 x 32: not a multiple of the encoder's stride 8"):
        transform(ENCODER, size=(30, 32))
