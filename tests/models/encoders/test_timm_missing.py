"""An installation of timm that cannot be imported is named with its remedy."""

import sys
from pathlib import Path

import pytest
import torch

from midway.errors import MidwayError
from midway.models.encoders.timm import TimmEncoder


def test_a_torchvision_that_does_not_fit_torch_is_named_with_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "timm.py").write_text("import torchvision\n")
    (tmp_path / "torchvision.py").write_text(
        'raise RuntimeError("operator torchvision::nms does not exist")\n'
    )
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("timm", "torchvision"):
        monkeypatch.delitem(sys.modules, name, raising=False)
    with pytest.raises(MidwayError) as error:
        TimmEncoder("vit_tiny", pretrained=False)
    assert str(error.value) == (
        "timm:vit_tiny needs a torchvision that fits torch (operator torchvision::nms does not "
        f"exist); install the build of torchvision for torch {torch.__version__}"
    )
