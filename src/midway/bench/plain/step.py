"""Plain training step, in the usual style of paper code, on the same weights and views as ours.

It is eager, with explicit attention, a log-softmax for each of the 72 terms, loops over tensors in
clipping, AdamW and EMA, and a device synchronisation at every step.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from midway.bench.plain.network import Attend, attend_written_out, dense_losses, encode, project
from midway.data.views.render import Clips
from midway.methods.midway import Midway


class PlainStep:
    """Plain step: forward, backward, clipping, AdamW, DINO centre and EMA teacher.

    Args:
        method: Method with weights and configuration; trained in place.
        lr: Learning rate.
        clip_norm: Largest norm of each gradient of encoder and head.
        autocast_type: Type of the forward pass; None for float32.
        attend: Attention function.

    """

    def __init__(
        self,
        method: Midway,
        *,
        lr: float,
        clip_norm: float,
        autocast_type: torch.dtype | None,
        attend: Attend = attend_written_out,
    ) -> None:
        self.method = method
        self.attend = attend
        self.clip_norm = clip_norm
        self.autocast_type = autocast_type
        groups = method.parameter_groups()
        entries = [
            {
                "params": group.parameters,
                "weight_decay": 0.04 if group.weight_decay == "scheduled" else group.weight_decay,
            }
            for group in groups
        ]
        self.clipped = [p for group in groups if group.clip for p in group.parameters]
        self.optimizer = torch.optim.AdamW(entries, lr=lr, foreach=False, fused=False)

    def step(self, clips: Clips, momentum: float) -> float:
        """Train on the views of a batch and return the loss."""
        loss = self.loss(clips)
        self.optimizer.zero_grad()
        loss.backward()
        for parameter in self.clipped:
            assert parameter.grad is not None
            factor = self.clip_norm / (parameter.grad.norm(2) + 1e-6)
            if factor < 1:
                parameter.grad.mul_(factor)
        self.optimizer.step()
        self._move_averages(momentum)
        return loss.item()

    def loss(self, clips: Clips) -> Tensor:
        """Compute the DINO term plus the sum or mean of the dense losses."""
        device = clips.seconds.device.type
        dtype = self.autocast_type
        with torch.autocast(device, dtype=dtype, enabled=dtype is not None):
            dino = self._dino(clips)
            dense = torch.stack(self._dense(clips))
        over = self.method.config.dense_over_levels
        return dino + (dense.mean() if over == "mean" else dense.sum())

    def _dense(self, clips: Clips) -> list[Tensor]:
        network = self.method.network
        source, target = clips.views["motion"][:, 0]
        levels, grid = network.config.levels, network.grid(source)
        students = [
            encode(network.encoder, frame, levels, self.attend) for frame in (source, target)
        ]
        with torch.no_grad():
            teachers = [
                encode(network.teacher.encoder, frame, levels, self.attend)
                for frame in (source, target)
            ]
        there = dense_losses(network, students[0], teachers[1], grid, self.attend)
        back = dense_losses(network, students[1], teachers[0], grid, self.attend)
        return [(one + other) / 2 for one, other in zip(there, back, strict=True)]

    def _dino(self, clips: Clips) -> Tensor:
        network, head = self.method.network, self.method.network.head
        top = (len(network.encoder.blocks),)
        together = [clips.views[name].flatten(0, 2) for name in ("globals", "locals")]
        num_globals, num_locals = (len(crops) // len(clips) for crops in together)
        classes = [encode(network.encoder, crops, top, self.attend)[0][:, 0] for crops in together]
        student = project(head, torch.cat(classes))
        with torch.no_grad():
            seen = encode(network.teacher.encoder, together[0], top, self.attend)[0][:, 0]
            teacher = project(network.teacher.head, seen)
        return self._cross_entropy(
            student.float().chunk(num_globals + num_locals), teacher.float().chunk(num_globals)
        )

    def _cross_entropy(self, student: tuple[Tensor, ...], teacher: tuple[Tensor, ...]) -> Tensor:
        dino = self.method.network.dino_loss
        total, terms = torch.zeros((), device=student[0].device), 0
        targets = [
            F.softmax((logits - dino.center) / dino.temperature, dim=-1) for logits in teacher
        ]
        for q, target in enumerate(targets):
            for v, logits in enumerate(student):
                same_window = v < len(teacher) and abs(v - q) in (0, len(teacher) // 2)
                if same_window:
                    continue
                log_probability = F.log_softmax(logits / dino.config.student_temperature, dim=-1)
                total = total + torch.sum(-target * log_probability, dim=-1).mean()
                terms += 1
        self.batch_center = torch.cat(teacher).mean(dim=0, keepdim=True)
        return total / terms

    @torch.no_grad()
    def _move_averages(self, momentum: float) -> None:
        network = self.method.network
        dino = network.dino_loss
        share = dino.config.center_momentum
        dino.center = dino.center * share + self.batch_center * (1 - share)
        followed = (
            (network.teacher.encoder, network.encoder),
            (network.teacher.head, network.head),
            (network.teacher.down, network.dynamics.down),
            (network.teacher.backward_layers, network.dynamics.backward_layers),
        )
        for teacher, student in followed:
            for old, new in zip(teacher.parameters(), student.parameters(), strict=True):
                old.data.mul_(momentum).add_((1 - momentum) * new.detach().data)
