"""Midway Network: self-supervised learning of recognition and motion from unlabelled video."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from midway.export.card import Card as Card
    from midway.export.hub import HubModel as HubModel
    from midway.export.transformers import to_transformers as to_transformers
    from midway.models.dino import HeadConfig as HeadConfig
    from midway.models.dynamics import Dynamics as Dynamics
    from midway.models.dynamics import DynamicsConfig as DynamicsConfig
    from midway.models.encoders.base import Encoder as Encoder
    from midway.models.encoders.vit import EncoderConfig as EncoderConfig
    from midway.models.encoders.vit import VisionTransformer as VisionTransformer
    from midway.models.midway import MidwayNetwork as MidwayNetwork
    from midway.models.midway import NetworkConfig as NetworkConfig
    from midway.models.transform import transform as transform
    from midway.models.weights.load import load as load
    from midway.models.weights.release import ReleaseHints as ReleaseHints
    from midway.models.weights.save import save as save
    from midway.models.weights.sources import load_encoder as load_encoder

_HOMES = {
    "Card": "midway.export.card",
    "Dynamics": "midway.models.dynamics",
    "DynamicsConfig": "midway.models.dynamics",
    "Encoder": "midway.models.encoders.base",
    "EncoderConfig": "midway.models.encoders.vit",
    "HeadConfig": "midway.models.dino",
    "HubModel": "midway.export.hub",
    "MidwayNetwork": "midway.models.midway",
    "NetworkConfig": "midway.models.midway",
    "ReleaseHints": "midway.models.weights.release",
    "VisionTransformer": "midway.models.encoders.vit",
    "load": "midway.models.weights.load",
    "load_encoder": "midway.models.weights.sources",
    "save": "midway.models.weights.save",
    "to_transformers": "midway.export.transformers",
    "transform": "midway.models.transform",
}


def __getattr__(name: str) -> Any:
    """Import a public name on first access.

    Workers that only read frames therefore do not load torch (150 MB each).
    """
    if name not in _HOMES:
        raise AttributeError(f"module 'midway' has no attribute '{name}'")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(_HOMES)
