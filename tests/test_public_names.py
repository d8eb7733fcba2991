"""The names of the package itself: all there, and imported only when they are asked for."""

import subprocess
import sys

import pytest

import midway


def test_every_public_name_is_what_it_says():
    assert {"load", "save", "MidwayNetwork", "VisionTransformer", "Dynamics"} <= set(dir(midway))
    for name in dir(midway):
        assert getattr(midway, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'lode'"):
        _ = midway.lode  # pyright: ignore[reportAttributeAccessIssue]


def test_reading_frames_needs_no_torch():
    code = "import sys, midway.data.sampling.samples; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"
