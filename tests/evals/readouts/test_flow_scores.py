"""Pictures of flow hold what they say, where they say."""

import numpy as np

from midway.analysis.lettering import BACK, GAP_PIXELS, whole_factor
from midway.data.flow.colours import flow_to_rgb
from midway.data.flow.pairs import FlowExample
from midway.evals.readouts.flow_scores import flow_picture


def test_six_panels_show_frames_flows_and_the_error():
    rng = np.random.default_rng(0)
    source, target = rng.integers(0, 256, (2, 10, 12, 3)).astype(np.uint8)
    flow = np.full((10, 12, 2), (3.0, 4.0), np.float32)
    flow[0, 0] = np.inf
    predicted = flow.copy()
    predicted[0, 0] = 0
    predicted[:, 6:] += 2.5  # beyond half the longest true motion, 5 pixels
    picture = flow_picture(
        FlowExample(source=source, target=target, flow=flow, occluded=None), predicted
    )
    # Enlarged 24 times, below a caption each.
    factor = whole_factor(source)
    assert factor == 24
    bar = len(picture) // 2 - 10 * factor
    width = 12 * factor + GAP_PIXELS
    assert picture.shape == (2 * (bar + 240), 3 * width - GAP_PIXELS, 3)
    assert (picture[:bar] > 200).any()

    def panel(row, column):
        top, left = row * (bar + 240) + bar, column * width
        return picture[top : top + 240 : factor, left : left + 12 * factor : factor]

    np.testing.assert_array_equal(panel(0, 0), source)
    np.testing.assert_array_equal(panel(0, 1), target)
    assert np.abs(panel(0, 2).astype(int) - (source / 2 + target / 2)).max() <= 1
    np.testing.assert_array_equal(panel(1, 0), flow_to_rgb(flow, 5.0))
    # The wheel covers the lower right corner.
    np.testing.assert_array_equal(panel(1, 1)[:6], flow_to_rgb(predicted, 5.0)[:6])
    assert (picture[-1, 2 * width - GAP_PIXELS - 1] == BACK).all()
    error = panel(1, 2).astype(int).sum(-1)
    assert error[0, 0] == 0
    assert error[5, 2] < 10
    assert (error[:, 6:] > 550).all()
