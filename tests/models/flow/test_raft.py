"""RAFT: agreement with torchvision's network on the same weights, and slow loops of its parts."""

import importlib.util
import math

import pytest
import torch

from midway.errors import MidwayError
from midway.models.flow.raft import Raft, correlation_pyramid, look_up, upsample
from midway.models.flow.raft_layers import LEVELS, RADIUS

GOLDEN = {
    (5, 7): (-0.2455, -4.9283),
    (40, 100): (11.2854, -32.2711),
    (64, 64): (16.9407, -28.8351),
    (100, 31): (12.6428, -34.6492),
    (127, 127): (4.7320, -9.9410),
}
"""Flow (u, v) in pixels at some (row, column) after 3 iterations, by torchvision 0.28's
`raft_large(weights=None)` with the weights of `fill` on `images(128, 128)`."""


def fill(network: torch.nn.Module) -> None:
    """Set all tensors by a formula, so that no generator of random numbers is involved."""
    for number, (name, tensor) in enumerate(sorted(network.state_dict().items())):
        if not tensor.is_floating_point():
            continue
        wave = torch.sin(torch.arange(tensor.numel(), dtype=torch.float64) * 12.9898 + number)
        # Kernels have the variance 2 / fan-in; factors and variances lie round 1, the rest round 0.
        if tensor.ndim == 4:
            values = wave * 2 / tensor[0].numel() ** 0.5
        else:
            is_factor = name.endswith(("1.weight", "running_var"))
            values = 0.1 * wave + (1.0 if is_factor else 0.0)
        tensor.copy_(values.view(tensor.shape))


def images(height: int, width: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Two smooth images in [-1, 1], the second one shifted."""
    y, x = torch.meshgrid(
        torch.arange(height, dtype=torch.float64),
        torch.arange(width, dtype=torch.float64),
        indexing="ij",
    )

    def image(shift: float) -> torch.Tensor:
        waves = [torch.sin((x - shift) * a) * torch.cos((y + shift / 2) * b) for a, b in PERIODS]
        return torch.stack(waves)[None].float()

    return image(0.0), image(3.0)


PERIODS = ((0.31, 0.17), (0.11, 0.43), (0.23, 0.29))


@pytest.fixture(scope="module")
def network() -> Raft:
    network = Raft(iterations=3).eval().requires_grad_(False)
    fill(network)
    return network


def test_it_has_as_many_parameters_as_the_published_network():
    with torch.device("meta"):
        network = Raft()
    assert sum(p.numel() for p in network.parameters()) == 5_257_536


def test_flow_agrees_with_torchvisions_on_the_same_weights(network: Raft):
    optical_flow = _torchvision()
    theirs = optical_flow.raft_large(weights=None).eval()
    theirs.load_state_dict(network.state_dict())
    source, target = images(128, 136)
    with torch.no_grad():
        expected = theirs(source, target, num_flow_updates=3)[-1]
        back = theirs(target, source, num_flow_updates=3)[-1]
    torch.testing.assert_close(network(source, target), expected, rtol=1e-3, atol=1e-3)
    both = network.both_ways(source, target)
    for ours, wanted in zip(both, (expected, back), strict=True):
        torch.testing.assert_close(ours, wanted, rtol=1e-3, atol=1e-3)


def test_flow_agrees_with_numbers_of_torchvision(network: Raft):
    flow = network(*images(128, 128))
    assert flow.shape == (1, 2, 128, 128)
    for (row, column), wanted in GOLDEN.items():
        assert flow[0, :, row, column].tolist() == pytest.approx(wanted, rel=1e-3, abs=2e-3)


def test_correlation_is_looked_up_as_by_a_slow_loop():
    torch.manual_seed(0)
    source, target = torch.randn(2, 1, 5, 9, 10).unbind(0)
    places = torch.stack([torch.rand(9, 10) * 12 - 1, torch.rand(9, 10) * 11 - 1])[None]
    found = look_up(correlation_pyramid(source, target), places)
    side = 2 * RADIUS + 1
    assert found.shape == (1, LEVELS * side**2, 9, 10)
    for level, i, j, row, column in (
        (0, 4, 4, 3, 3),
        (0, 0, 7, 8, 9),
        (1, 5, 3, 4, 2),
        (2, 4, 3, 0, 5),
    ):
        x, y = places[0, :, row, column] / 2**level
        value = _bilinear(_pooled(source, target, row, column, level), x + i - 4, y + j - 4)
        number = level * side**2 + i * side + j
        assert found[0, number, row, column].item() == pytest.approx(value, abs=1e-5)


def _pooled(source, target, row, column, level):
    """Return the scaled correlation of one cell with means over 2^level cells a side."""
    rows, columns = 9 >> level, 10 >> level
    dots = [
        [float(source[0, :, row, column] @ target[0, :, r, c]) for c in range(10)] for r in range(9)
    ]
    step = 2**level

    def mean(r, c):
        block = [dots[step * r + a][step * c + b] for a in range(step) for b in range(step)]
        return sum(block) / len(block) / math.sqrt(5)

    return [[mean(r, c) for c in range(columns)] for r in range(rows)]


def _bilinear(values, x, y):
    """Interpolate; 0 outside."""
    total = 0.0
    for r in (math.floor(y), math.floor(y) + 1):
        for c in (math.floor(x), math.floor(x) + 1):
            if 0 <= r < len(values) and 0 <= c < len(values[0]):
                total += values[r][c] * (1 - abs(float(y) - r)) * (1 - abs(float(x) - c))
    return total


def test_flow_is_upsampled_as_by_a_slow_loop():
    torch.manual_seed(0)
    flow, mask = torch.randn(1, 2, 3, 4), 2 * torch.randn(1, 576, 3, 4)
    fine = upsample(flow, mask)
    assert fine.shape == (1, 2, 24, 32)
    for row, column in ((0, 0), (9, 17), (23, 30)):
        r, c, i, j = row // 8, column // 8, row % 8, column % 8
        logits = [float(mask[0, 64 * n + 8 * i + j, r, c]) for n in range(9)]
        total = sum(map(math.exp, logits))
        wanted = [0.0, 0.0]
        for n, logit in enumerate(logits):
            y, x = r + n // 3 - 1, c + n % 3 - 1
            if 0 <= y < 3 and 0 <= x < 4:
                for axis in range(2):
                    wanted[axis] += math.exp(logit) / total * 8 * float(flow[0, axis, y, x])
        assert fine[0, :, row, column].tolist() == pytest.approx(wanted, abs=1e-4)


def test_small_images_have_finite_flow_and_unfit_ones_are_refused(network: Raft):
    small = torch.rand(1, 3, 64, 64)
    assert network(small, small).isfinite().all()
    for shape in ((1, 3, 56, 64), (1, 3, 100, 128)):
        with pytest.raises(MidwayError, match="multiples of 8, and 64 or more"):
            network(torch.zeros(shape), torch.zeros(shape))


def _torchvision():
    """Return torchvision's flow networks, also if its operators do not fit this build of torch."""
    if importlib.util.find_spec("torchvision") is None:
        pytest.skip("torchvision is not installed; the golden numbers were made with it")
    try:
        optical_flow = importlib.import_module("torchvision.models.optical_flow")
    except RuntimeError:
        # A build for CUDA beside a torch for CPUs lacks operators that RAFT does not use.
        library = torch.library.Library("torchvision", "DEF")
        for name in ("nms", "qnms"):
            library.define(f"{name}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
        try:
            optical_flow = importlib.import_module("torchvision.models.optical_flow")
        except (ImportError, RuntimeError) as error:
            pytest.skip(f"torchvision cannot be imported ({error})")
    except ImportError as error:
        pytest.skip(f"torchvision cannot be imported ({error})")
    return optical_flow
