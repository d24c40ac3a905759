"""Rotary tables are kept by everything that makes them differ, and only the last ones."""

import torch

from helios.models.transformer.rotary import RotaryTables
from helios.ops.rope import rotary_table

AXES, CPU = (8, 6, 6), torch.device("cpu")


def test_every_argument_gives_its_own_table():
    tables = RotaryTables(AXES, 10000.0)
    asked = [((1, 2), 4, 6, 1), ((1, 3), 4, 6, 1), ((1, 2), 2, 6, 1), ((1, 2), 4, 2, 1), ((1, 2), 4, 6, 2)]
    for _ in range(2):
        for frames, height, width, pool in asked:
            positions = torch.tensor([frames], dtype=torch.float32)
            expected = rotary_table(positions, height, width, axes=AXES, theta=10000.0, pool=pool)
            assert torch.equal(tables.stream(frames, height, width, CPU, pool=pool).table_BLP2, expected)


def test_a_table_is_made_once_and_old_ones_go():
    tables = RotaryTables(AXES, 10000.0, kept=2)
    first, again = (tables.stream((0,), 2, 2, CPU).table_BLP2 for _ in range(2))
    assert first is again
    assert (
        tables.stream(torch.tensor([[0]]), 2, 2, CPU).table_BLP2 is first
    )  # positions on the host cost nothing to read
    for height in (4, 6):
        tables.stream((0,), height, 2, CPU)
    assert tables.stream((0,), 2, 2, CPU).table_BLP2 is not first


def test_joined_tables_follow_their_order_and_are_kept():
    tables = RotaryTables(AXES, 10000.0)
    a, b = tables.stream((0,), 2, 2, CPU), tables.stream((5, 6), 2, 2, CPU)
    assert torch.equal(tables.join([a, b]).table_BLP2, torch.cat([a.table_BLP2, b.table_BLP2], dim=1))
    assert torch.equal(tables.join([b, a]).table_BLP2, torch.cat([b.table_BLP2, a.table_BLP2], dim=1))
    assert tables.join([a, b]).table_BLP2 is tables.join([a, b]).table_BLP2
    own = tables.stream(torch.tensor([[0], [1]]), 2, 2, CPU)
    assert own.key is None and tables.join([own, b]).key is None
    assert tables.join([own, b]).table_BLP2.shape == (2, 12, 10, 2)


def test_a_table_made_in_inference_mode_serves_training():
    tables = RotaryTables(AXES, 10000.0)
    with torch.inference_mode():
        tables.stream((0,), 2, 2, CPU)
    table = tables.stream((0,), 2, 2, CPU).table_BLP2
    assert not table.is_inference()
    (table * torch.ones(1, requires_grad=True)).sum().backward()
