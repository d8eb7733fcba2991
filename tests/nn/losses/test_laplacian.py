"""The bounded Laplacian loss equals a slow loop and its limits."""

import math

import pytest
import torch

from midway.nn.losses.laplacian import bounded_laplacian


def slow(output, flow):
    total, count = 0.0, 0
    for b, y, x in torch.cartesian_prod(*map(torch.arange, (len(flow), *flow.shape[2:]))).tolist():
        truth = flow[b, :, y, x].tolist()
        if not all(map(math.isfinite, truth)) or math.hypot(*truth) >= 10_000:
            continue
        u, v, c = output[b, :, y, x].tolist()
        scale = 0.25 + (4 - 0.25) / (1 + math.exp(-c))
        total += (abs(u - truth[0]) + abs(v - truth[1])) / scale + math.log(scale)
        count += 1
    return total / count


def test_it_equals_a_slow_loop_over_the_known_pixels_of_the_whole_batch():
    generator = torch.Generator().manual_seed(0)
    output = 5 * torch.randn(2, 3, 4, 5, generator=generator)
    flow = 5 * torch.randn(2, 2, 4, 5, generator=generator)
    flow[0, :, :3] = torch.inf
    flow[1, 0, 2, 2] = torch.nan
    flow[1, :, 3, 3] = 9_000
    assert bounded_laplacian(output, flow).item() == pytest.approx(slow(output, flow), rel=1e-5)


def test_the_scale_at_no_opinion_is_2125_thousandths_and_stays_within_its_bounds():
    zero = torch.zeros(1, 2, 1, 1)
    for c, scale in ((0.0, 2.125), (100.0, 4.0), (-100.0, 0.25)):
        output = torch.tensor([0.0, 0.0, c])[None, :, None, None]
        assert bounded_laplacian(output, zero).item() == pytest.approx(math.log(scale))


def test_unknown_pixels_give_neither_loss_nor_nan_in_the_gradient():
    output = torch.randn(1, 3, 2, 2, requires_grad=True)
    flow = torch.full((1, 2, 2, 2), torch.inf)
    loss = bounded_laplacian(output, flow)
    loss.backward()
    assert loss == 0
    assert (output.grad == 0).all()
