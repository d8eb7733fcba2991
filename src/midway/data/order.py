"""Former place of `epoch_order`."""

from midway.data.sampling.stream import epoch_order as epoch_order
