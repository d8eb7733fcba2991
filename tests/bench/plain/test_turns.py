"""Our step and the plain one are timed in turns, each in each precision."""

import pytest
import torch
from torch.nn import functional as F

from midway.bench.plain.turns import take_turns
from midway.bench.step import StepBenchmark
from midway.experiments.synthetic import BOTH_TERMS as CONFIG


def test_each_of_our_steps_is_set_against_the_plain_one_in_each_precision() -> None:
    benchmark = StepBenchmark(
        config=CONFIG,
        batch_size=1,
        device=torch.device("cpu"),
        compile=False,
        recompute=False,
        repeats=1,
        announce=lambda text: None,
    )
    precisions = {"32-true": None, "bf16-mixed": torch.bfloat16}
    times = take_turns(benchmark, precisions, F.scaled_dot_product_attention)
    assert times.agreements["32-true"].gradient_error is None
    assert times.agreements["bf16-mixed"].gradient_error is not None
    for own in precisions:
        for other in precisions:  # of one turn, so that the median is of one ratio
            seconds = times.plain_seconds_per_step[other] / times.seconds_per_step[own]
            assert times.ratios[own][other] == pytest.approx(seconds)
            assert times.cpu_ratios[own][other] > 0
