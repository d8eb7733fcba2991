"""Costs of the methods, counted on shapes, beside table 9 and `midway list methods`."""

import pytest
import torch

from midway.bench.costs import Costs, costs_of
from midway.data.views.render import example_clips
from midway.methods.base import About, build_method
from midway.methods.midway import MidwayConfig
from midway.registry import available, find

PACKAGE = "midway.methods"


@pytest.mark.slow
@pytest.mark.parametrize("name", available(PACKAGE))
def test_the_costs_in_the_list_of_methods_are_those_of_the_default_configuration(name: str) -> None:
    method = find(PACKAGE, name).METHOD
    found, listed = costs_of(method.Config()), method.about
    assert isinstance(listed, About)
    assert found.encoder_parameters / 1e6 == pytest.approx(listed.encoder_megaparameters, rel=0.001)
    assert found.other_parameters / 1e6 == pytest.approx(listed.other_megaparameters, rel=0.001)
    assert found.multiply_adds / 1e9 == pytest.approx(listed.giga_multiply_adds, rel=0.002)
    assert found.activation_bytes / 1e6 == pytest.approx(listed.activation_megabytes, rel=0.01)


def test_costs_are_those_of_one_sample_whatever_it_is_counted_on() -> None:
    config = MidwayConfig.tiny()
    found = costs_of(config)
    assert isinstance(found, Costs)
    method = build_method(config)
    student = method.encoders["student"]
    assert found.encoder_parameters == sum(p.numel() for p in student.parameters())
    trained = sum(p.numel() for p in method.parameters() if p.requires_grad)
    assert found.encoder_parameters + found.other_parameters == trained
    # The tensors that autograd holds after a real forward pass.
    saved: dict[int, torch.UntypedStorage] = {}
    own = {t.untyped_storage().data_ptr() for t in method.state_dict().values()}

    def keep(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            saved[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda x: x):
        method.loss(example_clips(method.spec, 2))
    held = sum(storage.nbytes() for storage in saved.values()) / 2
    # Fused attention of the CPU keeps no weights, so that a little less is held.
    assert 0.8 * found.activation_bytes < held <= 1.001 * found.activation_bytes
