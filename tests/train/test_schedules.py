import pytest

from midway.errors import MidwayError
from midway.train.objective import Progress
from midway.train.optim import OptimConfig, rates_at
from midway.train.schedules import cosine, warmup_cosine, warmup_poly


def test_the_learning_rate_follows_the_published_table():
    rates = [warmup_cosine(i, 6, warmup_steps=2, peak=0.002, final=1e-6) for i in range(6)]
    expected = [0, 0.002, 0.002, 0.00170725, 0.0010005, 0.00029374677]
    assert rates == pytest.approx(expected, abs=1e-8)


def test_weight_decay_and_momentum_follow_the_published_tables():
    decay = [cosine(i / 6, 0.04, 0.4) for i in range(6)]
    assert decay == pytest.approx([0.04, 0.064115, 0.13, 0.22, 0.31, 0.375885], abs=1e-6)
    momentum = [cosine(i / 6, 0.9, 1.0) for i in range(6)]
    assert momentum == pytest.approx([0.9, 0.9066987, 0.925, 0.95, 0.975, 0.9933013], abs=1e-6)


@pytest.mark.parametrize("warmup_steps", [0, 1, 6, 60])
def test_any_length_of_warmup_stays_between_zero_and_the_peak(warmup_steps):
    rates = [warmup_cosine(i, 6, warmup_steps=warmup_steps, peak=1.0, final=0.1) for i in range(6)]
    assert all(0 <= rate <= 1 for rate in rates)
    assert rates[0] == (1.0 if warmup_steps == 0 else 0.0)


def test_the_peak_rate_is_stated_for_256_samples_unless_it_is_absolute():
    progress = Progress(step=20, steps=100, steps_per_epoch=2.0, samples=512)
    config = OptimConfig(lr=1e-3, warmup_epochs=10)
    assert rates_at(progress, config).lr == pytest.approx(2e-3)
    fixed = OptimConfig(lr=1e-3, warmup_epochs=10, scale_lr=False)
    assert rates_at(progress, fixed).lr == pytest.approx(1e-3)


def test_progress_has_a_fraction_and_an_epoch():
    progress = Progress(step=3, steps=12, steps_per_epoch=2.0, samples=4)
    assert progress.fraction == 0.25
    assert progress.epoch == 1.5


def test_the_polynomial_rate_is_that_of_mmsegmentation():
    def mmcv(step, steps=10, warmup=4, peak=3e-5, floor=1e-6, power=0.9, ratio=1e-6):
        regular = (peak - floor) * (1 - step / steps) ** power + floor
        return regular * (1 - (1 - step / warmup) * (1 - ratio)) if step < warmup else regular

    ours = [
        warmup_poly(step, 10, warmup_steps=4, peak=3e-5, final=1e-6, power=0.9)
        for step in range(10)
    ]
    assert ours == pytest.approx([mmcv(step) for step in range(10)], rel=1e-12)
    assert ours[0] == pytest.approx(3e-11)


def test_a_polynomial_schedule_is_chosen_by_the_config_with_its_warmup_in_steps():
    config = OptimConfig(
        lr=1.0, scale_lr=False, final_lr=0.0, schedule="poly", power=2.0, warmup_steps=5
    )
    rates = [
        rates_at(Progress(step=s, steps=10, steps_per_epoch=1e9, samples=8), config).lr
        for s in range(10)
    ]
    assert rates[5:] == pytest.approx([0.25, 0.16, 0.09, 0.04, 0.01])
    assert rates[1] == pytest.approx(0.81 / 5, rel=1e-4)


def test_a_floor_above_the_peak_is_refused_as_the_rate_would_rise():
    with pytest.raises(MidwayError, match=r"final_lr = 0.0001: the rate would rise; .* lr = 3e-05"):
        OptimConfig(lr=3e-5, scale_lr=False, final_lr=1e-4)
