import torch

from midway.nn.losses.pixels import (
    masked_mse,
    normalise_patches,
    normalise_patches_by_colour,
    patchify,
    patchify_clip,
)


def test_values_of_a_cuboid_come_by_frame_row_column_and_channel() -> None:
    frames = torch.randn(2, 4, 3, 6, 9)
    patches = patchify_clip(frames, 3, length=2)
    assert patches.shape == (2, 2 * 2 * 3, 2 * 3 * 3 * 3)
    for token in range(12):
        part, place = divmod(token, 6)
        row, column = divmod(place, 3)
        wanted = [
            frames[1, 2 * part + f, c, 3 * row + y, 3 * column + x].item()
            for f in range(2)
            for y in range(3)
            for x in range(3)
            for c in range(3)
        ]
        assert patches[1, token].tolist() == wanted


def test_an_image_is_a_clip_of_one_frame() -> None:
    images = torch.randn(2, 3, 8, 12)
    patches = patchify(images, 4)
    assert torch.equal(patches, patchify_clip(images[:, None], 4, length=1))
    assert torch.equal(patches[0, 1].view(4, 4, 3), images[0, :, :4, 4:8].permute(1, 2, 0))


def test_a_patch_is_normalised_as_a_whole_or_by_colour() -> None:
    patches = torch.randn(2, 3, 5 * 3) + torch.tensor([0.0, 10.0, -5.0]).repeat(5)
    whole = normalise_patches(patches)
    torch.testing.assert_close(whole.mean(-1), torch.zeros(2, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(whole.var(-1), torch.ones(2, 3))  # unbiased, as in MAE
    # Colours keep their differences in the whole, and lose them one by one.
    assert whole.unflatten(-1, (5, 3)).mean(2)[..., 1].min() > 0.5
    each = normalise_patches_by_colour(patches).unflatten(-1, (5, 3))
    torch.testing.assert_close(each.mean(2), torch.zeros(2, 3, 3), atol=1e-5, rtol=0)
    torch.testing.assert_close(each.var(2), torch.ones(2, 3, 3))


def test_a_patch_of_one_colour_is_finite() -> None:
    grey = torch.full((1, 1, 12), 0.5)
    assert not normalise_patches(grey).any()
    assert not normalise_patches_by_colour(grey).any()


def test_only_masked_patches_count() -> None:
    targets, masked = torch.randn(2, 5, 6), torch.tensor([[1, 4], [0, 2]])
    predicted = torch.randn(2, 2, 6)
    wanted = sum(
        (predicted[b, i] - targets[b, masked[b, i]]).square().mean()
        for b in range(2)
        for i in range(2)
    )
    torch.testing.assert_close(masked_mse(predicted, targets, masked), wanted / 4)
    assert masked_mse(predicted.bfloat16(), targets, masked).dtype == torch.float32
