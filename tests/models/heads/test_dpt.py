"""The DPT head: shapes, a count of its parameters by hand, gradients, sizes it refuses."""

import pytest
import torch

from midway.errors import MidwayError
from midway.models.heads.dpt import DptHead, to_map

WIDTHS = (4, 6, 8, 10)


def head(in_widths=(5, 7, 5, 5)):
    torch.manual_seed(0)
    return DptHead(in_widths, widths=WIDTHS, fused_width=12, last_width=3, num_outputs=3)


def maps(rows=4, columns=6, in_widths=(5, 7, 5, 5)):
    return [torch.randn(2, width, rows, columns) for width in in_widths]


@pytest.mark.parametrize("patch", [8, 14, 16])
def test_outputs_have_the_size_of_the_image_whatever_the_patch(patch):
    assert head()(maps(), (4 * patch, 6 * patch)).shape == (2, 3, 4 * patch, 6 * patch)


def test_the_papers_head_has_as_many_parameters_as_a_count_by_hand():
    published = DptHead(
        (384, 192, 384, 384),
        widths=(96, 192, 384, 768),
        fused_width=256,
        last_width=32,
        num_outputs=3,
    )
    projections = 384 * 96 + 96 + 192 * 192 + 192 + 384 * 384 + 384 + 384 * 768 + 768
    resizing = 96 * 96 * 16 + 96 + 192 * 192 * 4 + 192 + 768 * 768 * 9 + 768
    to_fusion = 9 * 256 * (96 + 192 + 384 + 768)
    unit = 2 * (9 * 256 * 256 + 256)
    fusion = 7 * unit + 4 * (256 * 256 + 256)  # the deepest block has no skip
    last = 9 * 256 * 128 + 128 + 9 * 128 * 32 + 32 + 32 * 3 + 3
    expected = projections + resizing + to_fusion + fusion + last
    assert sum(p.numel() for p in published.parameters()) == expected


def test_every_parameter_gets_a_gradient():
    module = head()
    module(maps(), (64, 96)).square().mean().backward()
    assert all(p.grad is not None and p.grad.any() for p in module.parameters())


def test_every_map_is_read_and_a_finer_one_is_read_in_more_detail():
    module = head().eval()
    inputs = maps(8, 8)
    spread = []
    for level in range(4):
        changed = [each.clone() for each in inputs]
        changed[level][:, :, 4, 4] += 1
        difference = (module(changed, (128, 128)) - module(inputs, (128, 128))).abs().sum((0, 1))
        spread.append(int((difference > 0.02 * difference.max()).sum()))
    assert spread[0] < spread[3]
    assert min(spread) > 0


def test_an_odd_grid_is_refused():
    with pytest.raises(
        MidwayError, match="5x6 patches, both must be even; crop the image of 80x96"
    ):
        head()(maps(rows=5), (80, 96))


def test_a_map_drops_the_class_token_and_keeps_rows():
    tokens = torch.arange(7.0)[None, :, None]
    assert to_map(tokens, (2, 3)).tolist() == [[[[1, 2, 3], [4, 5, 6]]]]
