"""Our linear layer is torch's, up to rounding, wherever it may be used."""

import pytest
import torch
from torch import Tensor, nn
from torch.func import jvp, vmap
from torch.nn import functional as F

from midway.nn.linear import Linear, linear


def _parts(*shape: int, bias: bool = True) -> list[Tensor | None]:
    generator = torch.Generator().manual_seed(0)
    x, weight = torch.randn(*shape, generator=generator), torch.randn(7, 5, generator=generator)
    b = torch.randn(7, generator=generator) if bias else None
    return [part if part is None else part.requires_grad_() for part in (x, weight, b)]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(3, 5), (2, 4, 5), (2, 0, 5), (5,), (4, 8, 5)])
def test_outputs_and_all_gradients_are_torchs(shape: tuple[int, ...], bias: bool) -> None:
    ours, theirs = _parts(*shape, bias=bias), _parts(*shape, bias=bias)
    for parts, function in ((ours, linear), (theirs, F.linear)):
        function(*parts).square().sum().backward()
    torch.testing.assert_close(linear(*ours), F.linear(*theirs))
    for our, their in zip(ours, theirs, strict=True):
        if our is not None:
            torch.testing.assert_close(our.grad, their.grad)


def test_transposed_inputs_and_slices_of_weights_are_read_right() -> None:
    x = torch.randn(6, 4, 8).transpose(0, 1)
    weight = torch.randn(9, 16)[::2, :8]
    torch.testing.assert_close(linear(x, weight), F.linear(x, weight))


def test_only_what_wants_a_gradient_gets_one() -> None:
    x, weight, bias = _parts(3, 5)
    linear(x, weight.detach(), bias.detach()).sum().backward()
    torch.testing.assert_close(x.grad, weight.sum(0).expand(3, 5))
    assert weight.grad is None


def test_autocast_rounds_it_like_torchs() -> None:
    layer, plain = Linear(5, 7), nn.Linear(5, 7)
    plain.load_state_dict(layer.state_dict())
    x = torch.randn(2, 5)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, wanted = layer(x), plain(x)
    assert found.dtype == torch.bfloat16
    assert found.equal(wanted)


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
def test_functional_transforms_go_through_it() -> None:
    x, weight, bias = _parts(3, 5)
    tangents = torch.randn(4, 3, 5)
    found = vmap(lambda t: jvp(lambda y: linear(y, weight, bias), (x,), (t,))[1])(tangents)
    torch.testing.assert_close(found, tangents @ weight.t())
