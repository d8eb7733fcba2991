"""The protocol with sizes that take a second."""

from dataclasses import replace

from midway.data.synthetic.shape_world import ShapeWorldConfig
from midway.paper.miniature.protocol import PROTOCOL

MICRO = replace(
    PROTOCOL,
    world=ShapeWorldConfig(
        height=48, width=64, num_frames=45, num_objects=2, object_size=(0.5, 0.6), object_speed=30
    ),
    num_videos=2,
    steps=2,
    warmup_steps=1,
    frames_per_step=8,
    readout_worlds=2,
    test_worlds=2,
    clip_worlds=1,
    clip_frames=3,
    points_per_clip=4,
    flow_steps=2,
    flow_worlds=2,
    flow_batch=2,
)
