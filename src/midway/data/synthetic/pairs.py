"""Frame pairs of synthetic worlds with exact flow, generated in memory for evaluations."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from math import inf

from midway.data.flow.pairs import FlowExample
from midway.data.synthetic.world import World, WorldConfig
from midway.errors import MidwayError


@dataclass(frozen=True, kw_only=True)
class WorldPairs:
    """Evaluation set of worlds and frame pairs; by default, motion exceeds the size of a patch."""

    world: WorldConfig = field(
        default_factory=lambda: WorldConfig(
            height=128, width=128, object_speed=40.0, camera_speed=30.0
        )
    )
    first_seed: int = 1_000_000
    """Seed of the first world; the others follow. Worlds for training have lower seeds."""
    num_worlds: int = 16
    pairs_per_world: int = 4
    """Number of pairs; their source frames are evenly spaced over a world's video."""
    gap_seconds: float = 0.5
    """Time between source and target."""

    def __post_init__(self) -> None:
        if min(self.num_worlds, self.pairs_per_world) < 1 or not 0 < self.gap_seconds < inf:
            raise MidwayError(
                f"no pairs: {self.num_worlds} worlds of {self.pairs_per_world} pairs "
                f"{self.gap_seconds} s apart; give 1 or more of each and a gap above 0"
            )
        if self.first_seed < 0:
            raise MidwayError(f"first_seed {self.first_seed}: give 0 or more")

    @property
    def seeds(self) -> range:
        """Seeds of the worlds."""
        return range(self.first_seed, self.first_seed + self.num_worlds)

    def source_seconds(self) -> list[float]:
        """Return the times of the source frames in each world."""
        step = self.world.num_frames / self.world.fps / self.pairs_per_world
        return [number * step for number in range(self.pairs_per_world)]

    def examples(self, *, look_seed: int | None = None) -> Iterator[FlowExample]:
        """Yield pairs with exact flow, ordered by world.

        Args:
            look_seed: Seed that re-samples the appearance of all worlds; motion stays the same.

        """
        for seed in self.seeds:
            world = World(self.world, seed, look_seed=look_seed)
            for seconds in self.source_seconds():
                motion = world.flow(seconds, seconds + self.gap_seconds)
                yield FlowExample(
                    source=world.frame(seconds).image,
                    target=world.frame(seconds + self.gap_seconds).image,
                    flow=motion.flow,
                    occluded=motion.occluded,
                )
