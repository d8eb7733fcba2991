"""Runs whose blocks are compiled and recomputed: the same curve, resumed and on two ranks."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from midway.errors import MidwayError

from .block_toy import BlockToy, train_fast
from .test_fit import model_of
from .toy import Toy, ToyLoader, losses, run_config, train

pytestmark = [
    pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor"),
    pytest.mark.usefixtures("one_thread"),
]
CHECKOUT = Path(__file__).parents[2]


def test_a_compiled_run_has_the_eager_curve_and_one_that_is_resumed_its_own_to_the_last_bit(
    tmp_path,
):
    eager, whole, parts = (tmp_path / name for name in ("eager", "whole", "parts"))
    train(run_config(eager), toy=BlockToy())
    train_fast(whole, "eager")
    for ours, reference in zip(losses(whole), losses(eager), strict=True):
        assert ours == pytest.approx(reference, rel=1e-4)
    assert list(model_of(whole)) == list(model_of(eager))

    assert train_fast(parts, "eager", ToyLoader(signal_step=4)).interrupted
    assert train_fast(parts, "eager", resume=True).steps == 10
    assert losses(parts) == losses(whole)


def test_what_has_nothing_to_compile_leaves_no_run_behind(tmp_path):
    for setting in ("compile", "recompute"):
        with pytest.raises(MidwayError, match=rf"run\.{setting}: this network has no blocks"):
            train(run_config(tmp_path / "run", **{setting: True}), toy=Toy())
    assert not (tmp_path / "run").exists()


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_two_compiled_ranks_equal_an_eager_one_with_twice_the_batch(tmp_path):
    two, one = tmp_path / "two", tmp_path / "one"
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command = [sys.executable, *launcher, "-m", "tests.train.block_toy", str(two)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""}
    with subprocess.Popen(command, env=environment, cwd=CHECKOUT) as process:
        try:
            assert process.wait() == 0
        finally:
            process.terminate()  # asked like this the launcher ends its ranks, which are sessions
    states = [torch.load(two / f"rank_{rank}.pt", weights_only=True) for rank in range(2)]
    torch.testing.assert_close(states[0], states[1], rtol=0, atol=0)
    train(run_config(one), ToyLoader(batch_size=16), toy=BlockToy(drop_path=0.0))
    for ours, reference in zip(losses(two), losses(one), strict=True):
        assert ours == pytest.approx(reference, rel=1e-4)
