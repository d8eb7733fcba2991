"""Command ``midway share NETWORK OWNER/NAME``: upload weights and model card to the hub."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import tyro

from midway.cli.export import opened
from midway.cli.options import NO_HINTS, ReleaseOptions, parse, say
from midway.export.card import UNKNOWN, Card
from midway.export.hub import HubModel
from midway.export.open import PartOptions


def main(words: Sequence[str]) -> dict[str, Any]:
    """Upload a network, or write what would be uploaded."""
    return parse(share, words, prog="midway share")


def share(
    network: Annotated[str, tyro.conf.arg(metavar="NETWORK")],
    repo: Annotated[str, tyro.conf.arg(metavar="OWNER/NAME")],
    /,
    licence: str,
    data: str = UNKNOWN,
    cost: str = UNKNOWN,
    results: tuple[Path, ...] = (),
    weights: str = "",
    private: bool = False,
    out: Path | None = None,
    release: ReleaseOptions = NO_HINTS,
) -> dict[str, Any]:
    """Upload a network or one of its encoders with a model card; log in first by `hf auth login`.

    Args:
        network: Run folder, release .pth, .ckpt, .safetensors, name or hub id, timm:NAME.
        repo: Repository on the hub, owner/name; created if it does not exist.
        licence: Licence of the weights, by the hub's name, such as apache-2.0.
        data: Sentence about the training data, for the card.
        cost: Sentence about hardware and duration of the training.
        results: Files results.json of evaluations of these weights, for the scores.
        weights: Encoder to share, such as teacher; by default the network or its only encoder.
        private: Make a new repository private.
        out: Folder to write instead of uploading.
        release: Overrides for a release file that lacks these values or states wrong ones.

    """
    card = Card(licence=licence, data=data, cost=cost, results=results)
    model = HubModel(opened(network, PartOptions(weights=weights), release), card)
    if out is None:
        address = model.push_to_hub(repo, private=private)
        say(f"{repo}: uploaded ({address})")
        return {"repo": repo, "commit": address}
    model.save_pretrained(out, model_card_kwargs={"repo": repo})
    say(f"{out}: {', '.join(sorted(each.name for each in out.iterdir()))}")
    return {"repo": repo, "out": str(out)}
