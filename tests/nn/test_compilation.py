"""Compiled or computed anew, a region gives the same loss and the same gradients."""

import copy
import os
import shutil
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import jvp

from midway.errors import MidwayError
from midway.nn.blocks import Block, CrossBlock, Gate, GatedBlock
from midway.nn.compilation import Region, compile_regions, recompute_regions
from midway.nn.eval_mode import evaluating
from tests.compilers import Counting, compiler

# Dynamo looks at the gradients of whatever enters a region.
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")

DIM = 12


def _block(drop_path: float = 0.5) -> Block:
    return Block(DIM, 3, qkv_bias=True, norm_eps=1e-6, drop_path=drop_path)


def _tokens(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0), requires_grad=True)


CASES: dict[str, tuple[Callable[[], Region], tuple[Any, ...]]] = {
    "block": (_block, (_tokens(6, 5, DIM),)),
    "block for its first token": (_block, (_tokens(6, 5, DIM), 1)),
    "cross block": (
        lambda: CrossBlock(DIM, 3, norm_eps=1e-5),
        (_tokens(2, 5, DIM), _tokens(2, 7, DIM)),
    ),
    "gate": (lambda: Gate(DIM, norm_eps=1e-5), (_tokens(2, 5, DIM),)),
    "gated block": (
        lambda: GatedBlock(DIM, 3, qkv_bias=False, norm_eps=1e-5),
        (_tokens(2, 5, DIM), _tokens(2, 5, DIM)),
    ),
}


class _Seen:
    """What a region gives, the gradients of its inputs and weights, and the bytes kept for them."""

    def __init__(self, region: Region, inputs: tuple[Any, ...]) -> None:
        own = [p.untyped_storage().data_ptr() for p in region.parameters()]
        kept: dict[int, int] = {}

        def keep(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in own:
                kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        torch.manual_seed(1)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            out = region(*inputs)
        self.loss = out.square().mean()
        wanted = [each for each in inputs if isinstance(each, Tensor) and each.requires_grad]
        self.gradients = torch.autograd.grad(self.loss, [*wanted, *region.parameters()])
        self.bytes = sum(kept.values())


@pytest.mark.parametrize("case", CASES)
def test_recomputed_is_the_same_to_the_last_bit_and_keeps_less(case: str) -> None:
    make, inputs = CASES[case]
    region = make()
    kept = _Seen(region, inputs)
    recompute_regions(region)
    again = _Seen(region, inputs)
    assert torch.equal(again.loss, kept.loss)
    for found, wanted in zip(again.gradients, kept.gradients, strict=True):
        assert torch.equal(found, wanted)
    assert 0 < again.bytes <= sum(x.nbytes for x in inputs if isinstance(x, Tensor)) < kept.bytes


def test_drop_path_drops_something_in_these_tests() -> None:
    block, x = _block(), CASES["block"][1][0]
    torch.manual_seed(1)
    is_whole = torch.isclose(block(x), block.eval()(x)).flatten(1).all(1)
    assert not is_whole.all()


@pytest.mark.parametrize("case", CASES)
def test_traced_by_the_compiler_it_computes_the_same(case: str) -> None:
    make, inputs = CASES[case]
    region = make()
    eager = _Seen(region, inputs)
    names, twin = list(region.state_dict()), copy.deepcopy(region)
    backend = Counting()
    with compiler(backend):
        compile_regions(region)
        found = _Seen(region, inputs)
        assert backend.graphs == 1
        _Seen(copy.deepcopy(region), inputs)  # a copy is not compiled
        recompute_regions(region)
        again = _Seen(region, inputs)
        assert backend.graphs == 1
    for one in (found, again):
        torch.testing.assert_close(one.loss, eager.loss, rtol=1e-5, atol=0)
        torch.testing.assert_close(one.gradients, eager.gradients, rtol=1e-4, atol=1e-7)
    assert list(region.state_dict()) == names
    twin.load_state_dict(region.state_dict())


@pytest.mark.parametrize("case", CASES)
def test_compiled_and_recomputed_in_mixed_precision_it_sees_weights_that_have_moved(
    case: str,
) -> None:
    make, inputs = CASES[case]
    region = make().eval()

    def run() -> Tensor:
        with torch.autocast("cpu", dtype=torch.bfloat16):
            out = region(*inputs)
        torch.autograd.grad(out.float().sum(), list(region.parameters()))
        return out

    with compiler(Counting()):
        compile_regions(region)
        recompute_regions(region)
        before = run()
        with torch.no_grad():
            for parameter in region.parameters():
                parameter.mul_(2)
        assert not torch.equal(run(), before)
    # Left open by one region, autocast's cache of weights would serve all that trains after it.
    assert torch.autocast_increment_nesting() == 1
    torch.autocast_decrement_nesting()


def test_blocks_that_differ_in_weights_and_drop_path_alone_share_their_code() -> None:
    blocks = nn.Sequential(*(_block(p) for p in (0.1, 0.2, 0.3, 0.4)))
    backend = Counting()
    with compiler(backend):
        compile_regions(blocks)
        blocks(_tokens(2, 5, DIM))
        assert backend.graphs == 1
        blocks(_tokens(2, 6, DIM))
        assert backend.graphs == 2


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
def test_evaluation_and_its_derivatives_take_the_eager_path_and_training_has_its_code_back() -> (
    None
):
    block, x = _block(), _tokens(2, 5, DIM)
    backend = Counting()
    with compiler(backend):
        compile_regions(block)
        with evaluating(block):
            block(x)
            with torch.nn.attention.sdpa_kernel(torch.nn.attention.SDPBackend.MATH):
                jvp(block, (x.detach(),), (torch.ones(2, 5, DIM),))
        assert backend.graphs == 0
        block(x)
        assert backend.graphs == 1


def test_a_network_without_regions_says_that_the_setting_does_nothing() -> None:
    with pytest.raises(MidwayError, match=r"run\.compile: this network has no blocks.*leave it"):
        compile_regions(nn.Linear(2, 2))
    with pytest.raises(MidwayError, match=r"run\.recompute: this network has no blocks"):
        recompute_regions(nn.Linear(2, 2))


def test_a_missing_compiler_is_told_before_anything_is_trained(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    with pytest.raises(MidwayError, match=r"no C\+\+ compiler 'no-such-compiler'.*install one"):
        compile_regions(_block())
    block = _block()
    with FakeTensorMode():  # needs no GPU
        block.scale = nn.Parameter(torch.empty(1, device="cuda"))
    monkeypatch.setenv("CC", "no-c-either")
    with pytest.raises(MidwayError, match=r"no C compiler 'no-c-either'.*environment variable CC,"):
        compile_regions(block)
    monkeypatch.delenv("CC")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(MidwayError, match=r"no C compiler 'gcc' or 'clang'"):
        compile_regions(block)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # what torch's compiler says of torch's own code
@pytest.mark.skipif(
    shutil.which(os.environ.get("CXX", "g++")) is None,
    reason="no C++ compiler (g++, or what CXX names), which compiled code on a CPU needs",
)
@pytest.mark.timeout(900)
def test_generated_code_computes_the_same_and_drops_the_same_paths() -> None:
    make, inputs = CASES["block"]
    region = make()
    eager = _Seen(region, inputs)
    with compiler():
        compile_regions(region)
        found = _Seen(region, inputs)
    torch.testing.assert_close(found.loss, eager.loss, rtol=1e-5, atol=0)
    torch.testing.assert_close(found.gradients, eager.gradients, rtol=1e-4, atol=1e-7)
