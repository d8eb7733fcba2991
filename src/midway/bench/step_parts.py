"""Timing of the parts of a training step, forward and backward."""

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from midway.bench.stopwatch import median_seconds
from midway.data.views.render import Clips
from midway.methods.midway import Midway
from midway.nn.losses.dense import normalized_mse
from midway.nn.losses.dino import multi_crop_loss


def time_parts(
    method: Midway, clips: Clips, autocast_type: torch.dtype | None, *, repeats: int
) -> dict[str, float]:
    """Measure each part of the networks in seconds per batch; gradients are cleared.

    Each part runs by itself on random inputs of its true shapes. The sum can differ from the whole
    step: caches are warm, and gradients of tensors with several uses are not summed.

    Args:
        method: The method with its weights.
        clips: A batch, which sets the shapes.
        autocast_type: Type of the forward passes; None for float32.
        repeats: Number of timings; the result is their median.

    """
    device = clips.seconds.device
    cast = partial(
        torch.autocast, device.type, dtype=autocast_type, enabled=autocast_type is not None
    )
    parts = _Parts(method, clips)
    seconds = {}
    for name, forward in parts.trained().items():

        def both(forward: Callable[[], Sequence[Tensor]] = forward) -> None:
            with cast():
                outputs = forward()
            torch.autograd.backward(list(outputs), [torch.ones_like(out) for out in outputs])

        seconds[name] = median_seconds(both, device, repeats=repeats)
        method.zero_grad(set_to_none=True)

    @torch.no_grad()
    def teacher() -> None:
        with cast():
            parts.teacher()

    seconds["teacher"] = median_seconds(teacher, device, repeats=repeats)
    return seconds


class _Parts:
    """Parts of the networks with random inputs."""

    def __init__(self, method: Midway, clips: Clips) -> None:
        self.network = method.network
        self.frames, self.globals, self.locals = (
            clips.views[name].flatten(0, 2) for name in ("motion", "globals", "locals")
        )
        self.batch = len(clips)
        self.num_globals = len(self.globals) // self.batch
        self.num_crops = self.num_globals + len(self.locals) // self.batch
        rows, columns = self.network.grid(self.frames)
        self.tokens = 1 + rows * columns

    def trained(self) -> dict[str, Callable[[], Sequence[Tensor]]]:
        """Return the parts with a backward pass, by name."""
        return {
            "student 224": self._student,
            "local crops": lambda: [self.network.encoder(self.locals)],
            "midway": self._midway,
            "backward layers": self._backward_layers,
            "forward dynamics": self._forward_dynamics,
            "heads": lambda: [self.network.head(self._random(self._crops(), self._dim))],
            "DINO loss": self._dino_loss,
        }

    def teacher(self) -> None:
        """Run the teacher: features, backward features and logits."""
        network, teacher = self.network, self.network.teacher
        teacher.encoder.levels(self.frames, network.config.levels)
        teacher.head(teacher.encoder(self.globals))
        features = self._features()
        for level in network.config.dynamics.levels:
            teacher.backward_layers[str(level)](features, features)
            teacher.down(features)

    @property
    def _dim(self) -> int:
        return self.network.config.encoder.width

    def _crops(self) -> int:
        return self.num_crops * self.batch

    def _student(self) -> list[Tensor]:
        encoder = self.network.encoder
        levels = encoder.levels(self.frames, self.network.config.levels)
        return [*levels, encoder(self.globals)]

    def _midway(self) -> list[Tensor]:
        config, path = self.network.config.dynamics, self.network.dynamics.midway_path
        tokens = config.num_latents + 2 * self.tokens
        found = []
        for level in config.levels:
            x = self._random(len(self.frames), tokens, config.midway_width)
            found += [
                path.up(path.compare(level, x, latents_only=True)),
                self.network.dynamics.down(self._features()),
            ]
        return found

    def _backward_layers(self) -> list[Tensor]:
        layers = self.network.dynamics.backward_layers
        return [layer(self._features(), self._features()) for layer in layers.values()]

    def _forward_dynamics(self) -> list[Tensor]:
        config = self.network.config.dynamics
        models = self.network.dynamics.forward_models
        latents = self._random(len(self.frames), config.num_latents, self._dim)
        target = self._features().detach()
        return [
            normalized_mse(model(self._features(), latents)[0], target) for model in models.values()
        ]

    def _dino_loss(self) -> list[Tensor]:
        prototypes = self.network.config.head.num_prototypes
        student = self._random(self.num_crops, self.batch, prototypes)
        teacher = student[: self.num_globals].detach()
        if torch.is_autocast_enabled(student.device.type):
            dtype = torch.get_autocast_dtype(student.device.type)
            student, teacher = student.to(dtype), teacher.to(dtype)
        targets = self.network.dino_loss
        temperature = targets.config.student_temperature
        return [multi_crop_loss(student, targets(teacher), temperature=temperature, num_frames=2)]

    def _features(self) -> Tensor:
        return self._random(len(self.frames), self.tokens, self._dim)

    def _random(self, *shape: int) -> Tensor:
        return torch.randn(*shape, device=self.frames.device, requires_grad=True)
