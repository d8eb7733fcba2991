"""World of photographs: parts of real pictures move in front of another picture.

A frame is a pure function of (config, seed, seconds) and of the pictures' pixels. The backdrop
pans, turns and zooms; each object is cut from another picture along a random outline, and adds a
motion of its own.
"""

from dataclasses import dataclass

import numpy as np

from midway.data.synthetic.cutouts import Photo, Polygon, find_photos
from midway.data.synthetic.motion import Motion
from midway.data.synthetic.rigid import RigidObject, RigidWorld, centre
from midway.data.synthetic.world import EVEN_STEP, check_scene
from midway.errors import MidwayError


@dataclass(frozen=True, kw_only=True)
class PhotoWorldConfig:
    """Pictures, size, length and motion of worlds of photographs."""

    photos: str = ""
    """Folder of pictures, also in its subfolders; if empty, those inside scikit-image and
    scikit-learn (`midway.data.synthetic.cutouts`)."""
    height: int = 96
    width: int = 128
    num_frames: int = 60
    fps: float = 30.0
    num_objects: int = 4
    object_size: tuple[float, float] = (0.25, 0.5)
    """Range of the objects' diameter, as a fraction of the height."""
    picture_share: tuple[float, float] = (0.3, 0.8)
    """Range of the part of a picture's shorter side that the height covers."""
    object_speed: float = 12.0
    """Root mean square speed of an object's independent motion in pixels per second."""
    object_turn: float = 0.5
    """Largest angle from an object's mean pose in radians."""
    object_zoom: float = 0.1
    """Largest change of an object's scale, as a natural logarithm."""
    camera_speed: float = 8.0
    """Root mean square speed of the backdrop in pixels per second; objects move with it."""
    camera_reach: tuple[float, float] = (0.15, 0.15)
    """Maximum displacement of the backdrop along x and y, as a fraction of the height; 0 for no
    motion along that axis."""
    camera_turn: float = 0.05
    """Largest angle of the backdrop in radians."""
    camera_zoom: float = 0.06
    """Largest change of the backdrop's scale, as a natural logarithm."""
    pan_speed: float = 0.0
    """Constant velocity added to the backdrop, in pixels per second: to the right for even seeds,
    to the left for odd ones. The camera follows the objects, so they do not drift."""

    def __post_init__(self) -> None:
        check_scene(self)
        for name in ("object_size", "picture_share"):
            smallest, largest = getattr(self, name)
            if not 0 < smallest <= largest:
                raise MidwayError(f"{name} = {smallest}, {largest}; give 0 < smallest <= largest")
        if min(self.camera_reach) < 0 or not any(self.camera_reach):
            raise MidwayError(
                f"camera_reach = {self.camera_reach}: below 0, or 0 along both axes; give 0 or "
                "more, at least one above 0 (for a still backdrop, give camera_speed 0)"
            )

    def build(self, seed: int) -> "PhotoWorld":
        """Return the world of a seed.

        Raises:
            MidwayError: There are no pictures, or one cannot be read.

        """
        return PhotoWorld(self, seed)


class PhotoWorld(RigidWorld):
    """Scene generated from `seed`, of unlimited duration."""

    def __init__(self, config: PhotoWorldConfig, seed: int) -> None:
        self.config = config
        rng = np.random.default_rng(seed)
        photos = find_photos(config.photos)
        # Neighbours in this order differ, so that an object is not cut from its backdrop.
        order = rng.permutation(len(photos))
        reach = [share * config.height for share in config.camera_reach]
        camera = Motion.random(
            rng,
            mean=np.array([*centre(config), 0, 0]),
            reach=np.array([*reach, config.camera_turn, config.camera_zoom]),
            speed=config.camera_speed,
            drift=-config.pan_speed if seed % 2 else config.pan_speed,
        )
        looks = [
            Photo.random(
                rng,
                photos[order[number % len(order)]],
                height=config.height,
                share=config.picture_share,
            )
            for number in range(1 + config.num_objects)
        ]
        offset = rng.uniform(0, 1, 2)
        objects = [
            self._object(rng, look, (offset + number * EVEN_STEP) % 1, camera)
            for number, look in enumerate(looks[1:])
        ]
        super().__init__(config, camera, looks[0], objects)

    def _object(
        self, rng: np.random.Generator, look: Photo, place: np.ndarray, camera: Motion
    ) -> RigidObject:
        config = self.config
        frame = np.array([config.width, config.height])
        motion = Motion.random(
            rng,
            mean=np.array([*((0.15 + 0.7 * place) * frame), 0, 0]),
            reach=np.array([*(0.2 * frame), config.object_turn, config.object_zoom]),
            speed=config.object_speed,
        )
        return RigidObject(
            motion=motion.carried_by(camera, parallax=rng.uniform(1, 1.5)),
            shape=Polygon.random(rng, size=rng.uniform(*config.object_size) * config.height),
            paint=look,
            class_id=1,
        )
