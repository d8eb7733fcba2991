"""Model card of a network for the Hugging Face hub: data, cost, scores with protocol, licence."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from midway.config import read_json
from midway.errors import MidwayError, counted
from midway.models.encoders.base import Encoder
from midway.models.midway import MidwayNetwork
from midway.models.weights.sources import weights_hash

UNKNOWN = "not stated"
_USE = """```python
import midway
import torch

encoder = midway.load_encoder("{repo}")
images = midway.transform(encoder)(pictures)  # list of PIL images, arrays or tensors
with torch.no_grad():
    (features,) = encoder.maps(images, [-1])  # (batch, channels, rows, columns)
```"""


@dataclass(frozen=True, kw_only=True)
class Card:
    """Facts of a model card that weights do not contain."""

    licence: str
    """Licence of the weights, by the hub's name, such as apache-2.0."""
    data: str = UNKNOWN
    """Training data and their licence."""
    cost: str = UNKNOWN
    """Hardware and duration of the training."""
    results: tuple[Path, ...] = ()
    """Files ``results.json`` of evaluations of these weights."""

    def __post_init__(self) -> None:
        if not self.licence.strip():
            raise MidwayError("licence: none given; give one by the hub's name, like apache-2.0")

    def text(self, network: MidwayNetwork | Encoder, repo: str) -> str:
        """Return the card as Markdown.

        Args:
            network: Network or encoder of the card.
            repo: Repository on the hub, ``owner/name``.

        Raises:
            MidwayError: A file of results is not readable, or is of other weights.

        """
        parameters = sum(each.numel() for each in network.parameters()) / 1e6
        encoder = network.encoder if isinstance(network, MidwayNetwork) else network
        height, width = encoder.image_size
        kind = "Midway network" if network is not encoder else f"Encoder ({encoder.kind})"
        return "\n\n".join(
            [
                f"# {repo.rpartition('/')[2]}",
                f"{kind} with {parameters:.1f} M parameters: {counted(encoder.depth, 'level')} of "
                f"width {encoder.width}, stride {encoder.stride}. Its input is {height} x {width} "
                "pixels by default, ImageNet-normalised.",
                _USE.format(repo=repo),
                f"## Training data\n\n{self.data}",
                f"## Cost\n\n{self.cost}",
                f"## Scores\n\n{self._scores(network)}",
                f"## Licence\n\n{self.licence}",
                f"SHA-256 of the weights: `{weights_hash(network)}`.\n",
            ]
        )

    def _scores(self, network: MidwayNetwork | Encoder) -> str:
        known = {weights_hash(each) for each in _parts(network)}
        rows = [row for path in self.results for row in _rows(path, known)]
        if not rows:
            return UNKNOWN
        head = ["protocol", "version", "score", "value", "date", "device"]
        lines = [head, ["---"] * len(head), *rows]
        return "\n".join(f"| {' | '.join(each)} |" for each in lines)


def _parts(network: MidwayNetwork | Encoder) -> list[MidwayNetwork | Encoder]:
    """Return a network and its encoders, as evaluations are of one of them."""
    encoders = network.encoders.values() if isinstance(network, MidwayNetwork) else ()
    return [network, *encoders]


def _rows(path: Path, known: set[str]) -> list[list[str]]:
    results = read_json(path)
    protocol, hardware = results.get("protocol"), results.get("environment")
    if not isinstance(protocol, Mapping) or not isinstance(hardware, Mapping):
        raise MidwayError(f"{path}: no results of an evaluation; give a results.json")
    if results.get("weights_sha256") not in known:
        raise MidwayError(
            f"{path}: has the results of other weights (SHA-256 "
            f"{str(results.get('weights_sha256'))[:12]}); evaluate the network that you share"
        )
    about = [str(protocol.get("name")), str(protocol.get("version"))]
    where = [str(results.get("date"))[:10], str(hardware.get("device"))]
    return [[*about, name, f"{value:.4g}", *where] for name, value in _numbers(results).items()]


def _numbers(results: Mapping[str, Any]) -> dict[str, float]:
    """Return the scores at the top of the results and of each level; counts are whole numbers."""
    found = {name: value for name, value in results.items() if isinstance(value, float)}
    found.pop("seconds", None)
    levels = results.get("levels")
    for level, scores in levels.items() if isinstance(levels, Mapping) else ():
        named = scores.items() if isinstance(scores, Mapping) else ()
        found |= {f"level {level} {name}": v for name, v in named if isinstance(v, float)}
    return found
