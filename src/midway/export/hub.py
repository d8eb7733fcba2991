"""Networks and encoders on the Hugging Face hub, through the mixin of huggingface_hub."""

from pathlib import Path
from typing import Any, Self

from huggingface_hub import ModelCard, ModelCardData, ModelHubMixin, errors, hf_hub_download

from midway.atomic import write_text
from midway.config import json_text, to_json
from midway.errors import MidwayError, one_line
from midway.export.card import Card
from midway.models.encoders.base import ENCODERS, Encoder, describe
from midway.models.midway import MidwayNetwork
from midway.models.weights.files import NETWORK, WeightsFile, read_weights
from midway.models.weights.hub import HUB_FILE
from midway.models.weights.layouts.beside import CONFIG
from midway.models.weights.load import build_encoder, build_network
from midway.models.weights.save import save

TAGS = ["video", "self-supervised-learning", "vision-transformer"]


class HubModel(ModelHubMixin, library_name="midway", tags=TAGS):
    """A network or an encoder, and its card; `midway.load` and `load_encoder` read it too.

    Args:
        network: Network or encoder.
        card: Facts for the model card; needed for writing.

    Examples:
        >>> import midway
        >>> network = midway.load("synthetic-tiny")
        >>> model = midway.HubModel(network, midway.Card(licence="apache-2.0", data="shapes"))
        >>> _ = model.save_pretrained("folder")  # doctest: +SKIP
        >>> _ = model.push_to_hub("owner/name")  # doctest: +SKIP
        >>> network = midway.HubModel.from_pretrained("owner/name").network  # doctest: +SKIP

    """

    def __init__(self, network: MidwayNetwork | Encoder, card: Card | None = None) -> None:
        self.network, self._card = network, card

    def push_to_hub(self, repo_id: str, **options: Any) -> str:
        """Upload weights, configuration and card in one commit, and return its address.

        Args:
            repo_id: Repository, ``owner/name``; created if it does not exist.
            options: Of the mixin, such as `private`, `branch` and `token`.

        Raises:
            MidwayError: The hub cannot be reached or refuses it, or there is no card.

        """
        options["model_card_kwargs"] = {"repo": repo_id} | (options.get("model_card_kwargs") or {})
        try:
            return str(super().push_to_hub(repo_id, **options))
        except MidwayError:
            raise
        except errors.HFValidationError:
            raise MidwayError(f"{repo_id}: is no name on the hub; give owner/name") from None
        except Exception as error:  # the hub's HTTP library has errors of its own
            raise MidwayError(
                f"{repo_id}: cannot be uploaded ({one_line(error)}); check the connection, and log "
                "in with `hf auth login`"
            ) from None

    @classmethod
    def from_pretrained(  # pyright: ignore[reportIncompatibleMethodOverride]
        cls, name: str | Path, **options: Any
    ) -> Self:
        """Read a network from a folder or a repository.

        Args:
            name: Path, or ``owner/name``.
            options: Of the mixin, such as `revision`, `cache_dir` and `token`.

        Raises:
            MidwayError: It cannot be read, or the hub cannot be reached.

        """
        try:
            return super().from_pretrained(name, **options)
        except (errors.HfHubHTTPError, errors.HFValidationError, OSError) as error:
            raise MidwayError(
                f"{name}: cannot be read ({one_line(error)}); check name and connection"
            ) from None

    def generate_model_card(self, repo: str = "owner/name") -> ModelCard:
        """Return the model card.

        Raises:
            MidwayError: There is no card.

        """
        if self._card is None:
            raise MidwayError("model card: none given; give HubModel a midway.Card")
        data = ModelCardData(
            license=self._card.licence, **type(self)._hub_mixin_info.model_card_data.to_dict()
        )
        return ModelCard(f"---\n{data.to_yaml()}\n---\n\n{self._card.text(self.network, repo)}")

    def _save_pretrained(self, save_directory: Path) -> None:
        network = self.network
        if isinstance(network, MidwayNetwork):
            sizes = {NETWORK: to_json(network.config)}
        else:
            sizes = {ENCODERS: describe(network, {"encoder": network})}
        save(network, save_directory / HUB_FILE)
        text = json_text(sizes, indent=2)
        write_text(save_directory / CONFIG, text)

    @classmethod
    def _from_pretrained(  # pyright: ignore[reportIncompatibleMethodOverride]
        cls,
        *,
        model_id: str,
        revision: str | None,
        cache_dir: str | Path | None,
        force_download: bool,
        local_files_only: bool,
        token: str | bool | None,
    ) -> Self:
        if Path(model_id).is_dir():
            return cls(_built(read_weights(Path(model_id) / HUB_FILE)))
        try:
            path = hf_hub_download(
                model_id,
                HUB_FILE,
                revision=revision,
                cache_dir=cache_dir,
                force_download=force_download,
                local_files_only=local_files_only,
                token=token,
            )
        except (errors.HfHubHTTPError, errors.HFValidationError, OSError) as error:
            raise MidwayError(
                f"{model_id}: the hub has no {HUB_FILE} there, or cannot be reached "
                f"({one_line(error)}); check name and connection"
            ) from None
        return cls(_built(read_weights(path)))


def _built(file: WeightsFile) -> MidwayNetwork | Encoder:
    return build_network(file) if file.has_network else build_encoder(file, "teacher")
