"""What every method in `midway.methods` promises."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from midway.config import to_json
from midway.data.render import Views
from midway.errors import MidwayError
from midway.experiments.synthetic import BOTH_TERMS, midway_tiny
from midway.methods.base import Method, MethodConfig, build_method, flops_per_sample, method_config
from midway.nn.regions import compile_regions, recompute_regions
from midway.registry import available
from midway.train.objective import Position
from tests.compilers import Counting, compiler

CONFIGS: dict[str, MethodConfig] = {
    "midway": BOTH_TERMS,
    "midway, dense term alone": midway_tiny().method,
}
POSITION = Position(step=5, steps=10, steps_per_epoch=2.0, samples=2)


@pytest.fixture(params=CONFIGS)
def config(request: pytest.FixtureRequest) -> MethodConfig:
    return CONFIGS[request.param]


@pytest.fixture
def method(config: MethodConfig) -> Method:
    torch.manual_seed(0)
    return build_method(config)


def test_every_method_is_held_to_the_contract() -> None:
    assert {config.name for config in CONFIGS.values()} == set(available("midway.methods"))


def _views(method: Method, batch: int = 2) -> Views:
    generator = torch.Generator().manual_seed(1)
    sizes = method.views

    def draw(count: int, size: tuple[int, int]) -> Tensor:
        return torch.randn(count, batch, 3, *size, generator=generator)

    return Views(
        motion=draw(2, sizes.motion_size),
        globals=draw(4, sizes.global_size),
        locals=draw(2 * sizes.num_local, sizes.local_size),
    )


def test_one_step_gives_a_finite_loss_and_every_trainable_parameter_a_gradient(
    method: Method,
) -> None:
    out = method.losses(_views(method))
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
    views = _views(method)
    assert method.losses(views).loss == again.losses(views).loss


def test_steps_on_one_batch_lower_the_loss_once_the_centre_has_settled(method: Method) -> None:
    views = _views(method)
    optimizer = torch.optim.AdamW((p for p in method.parameters() if p.requires_grad), lr=1e-3)
    losses = []
    for _ in range(40):
        out = method.losses(views)
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
    views, trained = _views(method), [p for p in method.parameters() if p.requires_grad]
    loss = method.losses(views).loss
    gradients = torch.autograd.grad(loss, trained)
    backend = Counting()
    with compiler(backend):
        compile_regions(method)
        recompute_regions(method)
        found = method.losses(views).loss
        found_gradients = torch.autograd.grad(found, trained)
    torch.testing.assert_close(found, loss, rtol=1e-5, atol=0)
    for ours, wanted in zip(found_gradients, gradients, strict=True):
        assert (ours - wanted).norm() <= 1e-4 * wanted.norm()
    assert 0 < backend.graphs < 24


def test_its_configuration_survives_json(method: Method) -> None:
    config = CONFIGS["midway"]
    assert method_config(to_json(config), where="test") == config


def test_work_is_counted_without_computing() -> None:
    flops = flops_per_sample(CONFIGS["midway"])
    doubled = replace(CONFIGS["midway"], views=replace(CONFIGS["midway"].views, num_local=8))
    assert 1e8 < flops < flops_per_sample(doubled)


def test_an_unknown_method_is_told_with_those_that_exist() -> None:
    with pytest.raises(MidwayError, match=r"no 'midwy'; there are .*midway"):
        method_config({"name": "midwy"}, where="config.json")
