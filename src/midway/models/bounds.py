"""Lower bounds of sizes in a configuration."""

from midway.errors import MidwayError


def check_at_least(part: str, config: object, **least: int) -> None:
    """Refuse a field of `config` that is below its bound.

    Args:
        part: What the configuration is of, for the message.
        config: Has a number under each name.
        least: Smallest value allowed, by field.

    Raises:
        MidwayError: Names the field and its bound.

    """
    for name, bound in least.items():
        value = getattr(config, name)
        if value < bound:
            raise MidwayError(f"{part}: {name} {value} is too small; give {bound} or more")
