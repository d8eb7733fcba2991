"""Learn recognition and motion from ordinary video, without labels, with one network."""

from midway.models.dynamics import Dynamics as Dynamics
from midway.models.dynamics import DynamicsConfig as DynamicsConfig
from midway.models.midway import HeadConfig as HeadConfig
from midway.models.midway import MidwayNetwork as MidwayNetwork
from midway.models.midway import NetworkConfig as NetworkConfig
from midway.models.vit import EncoderConfig as EncoderConfig
from midway.models.vit import VisionTransformer as VisionTransformer
from midway.models.weights import load as load
from midway.models.weights import save as save
