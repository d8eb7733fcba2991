"""What every method in `midway.methods` promises."""

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from midway.config import to_json
from midway.data.views.render import Clips, example_clips
from midway.errors import MidwayError
from midway.experiments.synthetic import midway_tiny
from midway.methods.base import Method, MethodConfig, build_method, flops_per_sample, method_config
from midway.methods.midway import MidwayConfig
from midway.models.encoders.base import EncoderSpec, describe
from midway.nn.compilation import compile_regions, recompute_regions
from midway.registry import available, find
from midway.train.objective import Progress, StepOutput
from tests.compilers import Counting, compiler

PACKAGE = "midway.methods"
CONFIGS: dict[str, MethodConfig] = {
    **{name: find("midway.methods", name).METHOD.Config.tiny() for name in available(PACKAGE)},
    "midway, dense term alone": midway_tiny().method,
}
POSITION = Progress(step=5, steps=10, steps_per_epoch=2.0, samples=2)


@pytest.fixture(params=CONFIGS)
def config(request: pytest.FixtureRequest) -> MethodConfig:
    return CONFIGS[request.param]


@pytest.fixture
def method(config: MethodConfig) -> Method:
    torch.manual_seed(0)
    return build_method(config)


def _clips(method: Method) -> Clips:
    return example_clips(method.spec, 2, generator=torch.Generator().manual_seed(1))


def _loss(method: Method, clips: Clips) -> StepOutput:
    """As in a step, before which the loop seeds the numbers that a loss draws."""
    torch.manual_seed(2)
    return method.loss(clips)


def test_its_name_is_that_of_its_file(config: MethodConfig) -> None:
    assert find(PACKAGE, config.name).METHOD.Config is type(config)


def test_its_encoders_are_parts_of_it_and_the_student_learns(method: Method) -> None:
    parts = set(method.modules())
    assert {*method.encoders.values()} <= parts
    assert any(p.requires_grad for p in method.encoders["student"].parameters())
    assert method.pair_encoder is None or method.pair_encoder in parts


def test_its_encoders_open_again_from_their_descriptions(method: Method) -> None:
    state = method.state_dict()
    for name, values in describe(method, method.encoders).items():
        spec = EncoderSpec(**values)
        encoder = spec.build(where=name)
        own = {
            n.removeprefix(spec.prefix): t for n, t in state.items() if n.startswith(spec.prefix)
        }
        encoder.load_state_dict(own)
        assert type(encoder) is type(method.encoders[name])


def test_its_pictures_are_bytes_of_whole_crops(method: Method) -> None:
    batch = SimpleNamespace(render=lambda spec: _clips(method))
    pictures = method.eval().pictures(batch)
    assert "features" in pictures
    for picture in pictures.values():
        assert picture.dtype == np.uint8
        assert picture.shape[2] == 3
        # Two samples side by side, in two rows.
        assert (picture.shape[0] % 2, picture.shape[1] % 2) == (0, 0)
        assert picture.std() > 0


def test_one_step_gives_a_finite_loss_and_every_trainable_parameter_a_gradient(
    method: Method,
) -> None:
    out = _loss(method, _clips(method))
    assert out.loss.isfinite()
    assert all(value.isfinite() and not value.requires_grad for value in out.logs.values())
    out.loss.backward()
    without = [n for n, p in method.named_parameters() if p.requires_grad and p.grad is None]
    assert not without


def test_every_trainable_parameter_is_in_one_group(method: Method) -> None:
    listed = [id(p) for group in method.parameter_groups() for p in group.parameters]
    assert len(listed) == len(set(listed))
    assert set(listed) == {id(p) for p in method.parameters() if p.requires_grad}


def test_the_same_seed_gives_the_same_loss(method: Method, config: MethodConfig) -> None:
    torch.manual_seed(0)
    again = build_method(config)
    clips = _clips(method)
    assert _loss(method, clips).loss == _loss(again, clips).loss


def test_steps_on_one_batch_lower_the_loss_once_the_centre_has_settled(method: Method) -> None:
    clips = _clips(method)
    optimizer = torch.optim.AdamW((p for p in method.parameters() if p.requires_grad), lr=1e-3)
    losses = []
    for _ in range(40):
        out = _loss(method, clips)
        losses.append(out.loss.item())
        optimizer.zero_grad()
        out.loss.backward()
        optimizer.step()
        with torch.no_grad():
            method.after_step(POSITION)
    assert losses[-1] < losses[15]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
def test_compiled_and_recomputed_it_has_the_same_loss_and_gradients_and_few_graphs(
    method: Method,
) -> None:
    clips, trained = _clips(method), [p for p in method.parameters() if p.requires_grad]
    loss = _loss(method, clips).loss
    gradients = torch.autograd.grad(loss, trained)
    backend = Counting()
    with compiler(backend):
        compile_regions(method)
        recompute_regions(method)
        found = _loss(method, clips).loss
        found_gradients = torch.autograd.grad(found, trained)
    torch.testing.assert_close(found, loss, rtol=1e-5, atol=0)
    for ours, wanted in zip(found_gradients, gradients, strict=True):
        assert (ours - wanted).norm() <= 1e-4 * wanted.norm()
    assert 0 < backend.graphs < 24


def test_its_work_is_counted_without_computing(config: MethodConfig) -> None:
    assert flops_per_sample(config) > 1e6


def test_its_configuration_survives_json(config: MethodConfig) -> None:
    assert method_config(to_json(config), where="test") == config


def test_more_crops_are_more_work() -> None:
    tiny = MidwayConfig.tiny()
    flops = flops_per_sample(tiny)
    doubled = replace(tiny, views=replace(tiny.views, num_local=8))
    assert 1e8 < flops < flops_per_sample(doubled)


def test_an_unknown_method_is_told_with_those_that_exist() -> None:
    with pytest.raises(MidwayError, match=r"no 'midwy'; there are .*midway"):
        method_config({"name": "midwy"}, where="config.json")
