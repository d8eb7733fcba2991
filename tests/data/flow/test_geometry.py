"""Flow under resizing and mirroring, checked on affine motion, whose flow is known everywhere."""

import pytest
import torch

from midway.data.flow.geometry import mirror_flow, mirror_image, resize_flow, resize_image
from midway.nn.images import warp

HEIGHT, WIDTH = 40, 60


def affine_flow(size, scale=(1.0, 1.0)):
    """Flow of a turn and a shear in the coordinates of an image of HEIGHT x WIDTH, in pixels of
    an image `scale` times as large."""
    y = (torch.arange(size[0]) + 0.5)[:, None] / scale[0]
    x = (torch.arange(size[1]) + 0.5)[None] / scale[1]
    return torch.stack([(0.1 * x - 0.2 * y + 3) * scale[1], (0.3 * x + 0.05 * y - 2) * scale[0]])


def test_resized_flow_is_that_of_the_resized_images():
    size = (60, 45)
    resized = resize_flow(affine_flow((HEIGHT, WIDTH)), size)
    expected = affine_flow(size, scale=(size[0] / HEIGHT, size[1] / WIDTH))
    # At the border the interpolation repeats the outermost pixels.
    torch.testing.assert_close(resized[:, 1:-1, 1:-1], expected[:, 1:-1, 1:-1])


@pytest.mark.parametrize("size", [(60, 90), (20, 30), (33, 71)])
def test_sparse_flow_goes_to_the_nearest_pixels_and_is_scaled(size):
    flow = affine_flow((HEIGHT, WIDTH))
    known = torch.rand(HEIGHT, WIDTH, generator=torch.Generator().manual_seed(0)) < 0.1
    flow[:, ~known] = torch.inf
    resized = resize_flow(flow, size)
    scale = (size[0] / HEIGHT, size[1] / WIDTH)
    expected = affine_flow(size, scale)
    found = resized.isfinite().all(0)
    assert 0.5 * known.sum() < found.sum() <= known.sum()
    # Half a pixel of the coarser image either way is at most this much flow.
    torch.testing.assert_close(resized[:, found], expected[:, found], rtol=0, atol=0.6)


def test_a_single_known_vector_keeps_its_place():
    flow = torch.full((2, 4, 4), torch.inf)
    flow[:, 0, 3] = torch.tensor([1.0, 2.0])
    resized = resize_flow(flow, (8, 12))
    assert resized.isfinite().all(0).nonzero().tolist() == [[1, 10]]
    assert resized[:, 1, 10].tolist() == [3, 4]


def test_of_vectors_that_fall_on_one_pixel_the_last_stays_and_of_none_nothing():
    flow = torch.arange(2 * 300 * 400.0).view(2, 300, 400)
    flow[:, 0, 0] = torch.inf
    resized = resize_flow(flow, (100, 100))
    torch.testing.assert_close(resized[0], flow[0, 2::3, 3::4] / 4)
    torch.testing.assert_close(resized[1], flow[1, 2::3, 3::4] / 3)
    assert (resize_flow(torch.full((2, 4, 6), torch.inf), (2, 3)) == torch.inf).all()


@pytest.mark.parametrize(("horizontal", "vertical"), [(True, False), (False, True), (True, True)])
def test_mirrored_flow_is_that_of_the_mirrored_images(horizontal, vertical):
    generator = torch.Generator().manual_seed(1)
    target = resize_image(torch.rand(3, 5, 8, generator=generator), (HEIGHT, WIDTH))
    flow = affine_flow((HEIGHT, WIDTH)) / 3
    source, _ = warp(target[None], flow[None])
    how = {"horizontal": horizontal, "vertical": vertical}
    mirrored, _ = warp(mirror_image(target, **how)[None], mirror_flow(flow, **how)[None])
    torch.testing.assert_close(mirrored[0], mirror_image(source[0], **how), atol=1e-5, rtol=1e-5)


def test_warping_by_whole_pixels_shifts_the_image():
    image = torch.rand(1, 3, 6, 9)
    flow = torch.tensor([2.0, -1.0])[None, :, None, None].expand(1, 2, 6, 9).clone()
    flow[0, :, 3, 3] = torch.inf
    warped, inside = warp(image, flow)
    torch.testing.assert_close(warped[0, :, 1:3, :7], image[0, :, :2, 2:])
    assert inside[0, 1:3, :7].all()
    assert not inside[0, 0].any()
    assert not inside[0, :, 7:].any()
    assert not inside[0, 3, 3]
    assert (warped[0, :, 3, 3] == 0).all()
