"""Hashes of protocol and cells change with all that changes their numbers."""

from dataclasses import replace

import pytest

from midway.errors import MidwayError
from midway.paper.miniature.protocol import LONG, PROTOCOL
from midway.paper.miniature.records import Cell

CELL = Cell(purpose="report", dataset="camvid", arm="midway", seed=0, trial=0)


def test_the_hash_of_the_protocol_is_that_of_the_reported_runs():
    assert PROTOCOL.hash() == "e596d891394b"
    assert LONG.hash() == "aa58ca1c418c"


def test_the_choice_of_cells_is_not_in_the_hash():
    assert replace(PROTOCOL, arms=("mae",), max_seeds=1).hash() == PROTOCOL.hash()


@pytest.mark.parametrize(
    "change",
    [
        {"steps": 301},
        {"world": replace(PROTOCOL.world, tilt=0.5)},
        {"encoder": replace(PROTOCOL.encoder, width=48)},
        {"flow_rates": (1e-4,)},
        {"window_readout": 32},
    ],
    ids=str,
)
def test_every_constant_is_in_the_hash(change):
    assert replace(PROTOCOL, **change).hash() != PROTOCOL.hash()


def test_a_cell_has_another_hash_for_another_seed_trial_method_or_pairs():
    changes = (
        {"seed": 1},
        {"trial": 1},
        {"arm": "base"},
        {"arm": "gap-0"},
        {"dataset": "synthetic"},
    )
    cells = [CELL, *(replace(CELL, **change) for change in changes)]
    assert len({cell.config_hash(PROTOCOL) for cell in cells}) == len(cells)
    assert CELL.config_hash(PROTOCOL) == CELL.config_hash(PROTOCOL)


def test_a_record_of_an_arm_that_is_gone_is_refused():
    with pytest.raises(MidwayError, match="there is no arm 'gone'; remove the record"):
        replace(CELL, arm="gone").config_hash(PROTOCOL)
