"""Methods of optical flow take networks by the same names as every other command."""

import pytest

from midway.errors import MidwayError
from midway.models.flow import predictor
from midway.models.flow.predictor import FlowMethod, flow_predictor


@pytest.mark.parametrize("name", ["https://example.org/net.pth", "hf://owner/name", "timm:vit"])
@pytest.mark.parametrize("method", ["features", "dynamics"])
def test_a_name_reaches_the_loader_as_it_was_given(monkeypatch, name, method):
    def refuse(network, **_):
        raise MidwayError(f"asked for {network}")

    monkeypatch.setattr(predictor, "read_source", refuse)
    monkeypatch.setattr(predictor, "load", refuse)
    monkeypatch.setattr(predictor, "load_encoder", refuse)
    with pytest.raises(MidwayError, match=f"asked for {name}"):
        flow_predictor(FlowMethod(method=method, network=name))
