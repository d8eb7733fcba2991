"""The depth readout: bins, loss and what is trained."""

import math

import pytest
import torch

from midway.data.depth.images import DepthData
from midway.data.depth.loader import DepthBatch
from midway.errors import MidwayError
from midway.evals.readouts.depth import DepthReadout, scale_invariant_loss
from midway.evals.readouts.depth_protocols import DepthReadoutConfig, nyu_linear
from tests.models.networks import random_network

CONFIG = DepthReadoutConfig(levels=(1, 4), bins=8)


@pytest.fixture
def readout():
    torch.manual_seed(0)
    return DepthReadout(random_network().encoder, CONFIG, DepthData(max_metres=4.0))


def test_depth_is_the_mean_of_bin_centres_by_rectified_logits(readout):
    assert readout.centres.flatten().tolist() == [0.25 + 0.5 * number for number in range(8)]
    with torch.no_grad():
        readout.head.classifier.weight.zero_()
        readout.head.classifier.bias.copy_(torch.tensor([-5.0, 0, 0, 0, 0, 0, 0, 2.0]))
    depth = readout.depth(torch.zeros(2, 3, 20, 37))
    assert depth.shape == (2, 20, 37)
    weights = [0.1] * 7 + [2.1]  # a floor of 0.1 below each
    centres = readout.centres.flatten().tolist()
    expected = sum(w * c for w, c in zip(weights, centres, strict=True)) / sum(weights)
    torch.testing.assert_close(depth, torch.full_like(depth, expected))


def test_the_loss_equals_a_slow_loop_over_known_pixels():
    predicted = torch.tensor([[[1.0, 2.0, 3.0, 7.0]]])
    truth = torch.tensor([[[2.0, 2.0, 1.0, 0.0]]])
    found = scale_invariant_loss(predicted, truth, truth > 0)
    logs = [math.log(p / t) for p, t in ((1, 2), (2, 2), (3, 1))]
    mean, square = sum(logs) / 3, sum(g * g for g in logs) / 3
    assert float(found) == pytest.approx(10 * math.sqrt(square - 0.85 * mean**2), abs=2e-3)


def test_the_loss_is_0_and_has_a_gradient_for_perfect_and_for_no_depth():
    for truth in (torch.ones(1, 2, 2), torch.zeros(1, 2, 2)):
        predicted = torch.ones(1, 2, 2, requires_grad=True)
        loss = scale_invariant_loss(predicted, truth, truth > 0)
        assert float(loss.detach()) == pytest.approx(0, abs=1e-6)
        loss.backward()
        assert predicted.grad.isfinite().all()


def test_only_the_head_is_trained(readout):
    batch = DepthBatch(
        images=torch.zeros(2, 3, 32, 32, dtype=torch.uint8), depth=torch.full((2, 32, 32), 2.0)
    )
    readout(batch).loss.backward()
    trained = {name for name, p in readout.named_parameters() if p.grad is not None}
    assert trained == {"head.classifier.weight", "head.classifier.bias"}
    assert not readout.train().encoder.training


def test_wrong_settings_are_refused():
    with pytest.raises(MidwayError, match=r"readout.bins: give 2 or more"):
        DepthReadoutConfig(bins=1)
    with pytest.raises(MidwayError, match=r"readout.levels: give one or more"):
        DepthReadoutConfig(levels=())
    with pytest.raises(MidwayError, match="the encoder has levels 1 to 4"):
        DepthReadout(random_network().encoder, DepthReadoutConfig(), DepthData())


def test_the_protocol_is_25_epochs_of_the_24231_images():
    config = nyu_linear()
    assert config.readout == DepthReadoutConfig(levels=(3, 6, 9, 12), bins=256)
    assert config.run.steps * config.data.batch_size / 24_231 == pytest.approx(25, abs=0.1)
