"""ConFEDE's retrieval: the samples that the ranking names, or, as released, positions taken for samples."""

import torch

from bench.models.parts.retrieval import NONE, draw_two, tables

RANKING = torch.tensor([[0, 3, 1, 2], [1, 2, 0, 3], [2, 1, 0, 3], [3, 0, 1, 2]])
LABEL = torch.tensor([1.0, 2.0, 2.0, 1.0])


def filled(table):
    return [[v for v in row if v != NONE] for row in table.tolist()]


def test_near_and_far_samples_are_those_of_the_ranking():
    found = tables(RANKING, torch.arange(4), LABEL)
    assert filled(found["ss"]) == [[3], [2], [1], [0]]  # itself is left out
    assert filled(found["sd"]) == [[1, 2], [0, 3], [0, 3], [1, 2]]
    assert filled(found["dd"])[0] == [2, 1] and filled(found["ds"])[0] == [3]


def test_released_tables_hold_positions():
    found = tables(RANKING, torch.arange(4), LABEL, release=True)
    assert filled(found["ss"])[3] == [0, 1]  # places 0 and 1 of its ranking: itself and sample 0
    assert filled(found["dd"])[0] == [-1, -2]


def test_two_draws_differ_where_there_are_two():
    table = torch.full((200, 10), NONE)
    table[:, :3] = torch.tensor([4, 5, -1])
    table[0, 1:], table[1] = NONE, NONE
    drawn = draw_two(table, torch.arange(200) + 7, 300)
    assert drawn[0].tolist() == [4, 4] and drawn[1].tolist() == [8, 8]
    assert (drawn[2:, 0] != drawn[2:, 1]).all() and set(drawn[2:].flatten().tolist()) == {4, 5, 299}
