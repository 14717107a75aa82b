"""The mistakes on show: gradcheck refuses each, with the reason that the page tells; and the matrix around them."""

from __future__ import annotations

import re

import numpy as np
import pytest

import pooling
from bench.experiments.exhibits import EXHIBITS, Exhibit
from bench.experiments.gradients import CASES, tie_examples, verdicts
from bench.schema.results import Verdict

SAYS = {
    "undivided mean": r"the gradient at cell \(.*\) is \S+, expected \S+",
    "mask pays every tie": r"backward pays every tied cell: of a dy of 1 at output \(.*\), 4 cells get up to 1 each.* expected 1",
    "zero padding": r"pooling x\+8 must give y\+8, but at output \(0, \d, \d, \d\) .* such as padding by a number",
}


@pytest.mark.parametrize("exhibit", EXHIBITS, ids=lambda exhibit: exhibit.name)
def test_gradcheck_refuses_it_on_its_example(exhibit: Exhibit) -> None:
    with pytest.raises(pooling.GradientError) as caught:
        pooling.gradcheck(exhibit.operator(), exhibit.example())
    assert re.fullmatch(SAYS[exhibit.name], str(caught.value)), caught.value


def test_the_undivided_mean_is_four_times_too_large() -> None:
    exhibit = next(e for e in EXHIBITS if e.name == "undivided mean")
    x = exhibit.example()
    right, wrong = pooling.AvgPool(2), exhibit.operator()
    (y, saved), (wrong_y, wrong_saved) = right.forward(x), wrong.forward(x)
    np.testing.assert_allclose(wrong_y, y)
    np.testing.assert_allclose(wrong.backward(y, wrong_saved), 4 * right.backward(y, saved))


def test_the_mask_is_right_where_nothing_ties_and_pays_all_where_it_does() -> None:
    exhibit = next(e for e in EXHIBITS if e.name == "mask pays every tie")
    mask = exhibit.operator()
    pooling.gradcheck(mask, np.random.default_rng(0).standard_normal((1, 2, 6, 6)))
    x = exhibit.example()
    pool = pooling.MaxPool(2, ties="all")
    (y, saved), (mask_y, mask_saved) = pool.forward(x), mask.forward(x)
    np.testing.assert_array_equal(mask_y, y)
    np.testing.assert_array_equal(mask.backward(y + 1, mask_saved), pool.backward(y + 1, saved))


def test_zeros_win_over_negative_cells_at_the_edge_only() -> None:
    exhibit = next(e for e in EXHIBITS if e.name == "zero padding")
    x, zeros = exhibit.example(), exhibit.operator()
    y, saved = zeros.forward(x)
    assert x.max() < 0
    np.testing.assert_array_equal(y[:, :, :-1, :-1], pooling.max_pool(x, 2))
    assert not y[:, :, -1].any()
    assert not y[:, :, :, -1].any()
    dx = zeros.backward(np.ones_like(y), saved)
    assert dx.sum() < y.size, "the edge windows' gradient should be lost"
    pooling.gradcheck(zeros, np.abs(x), shifts=False)


def test_the_matrix() -> None:
    rows = list(verdicts(cases=2))
    shown = {(row.subject, row.case): row for row in rows}
    assert len(shown) == len(rows)
    assert {row.case for row in rows if not row.exhibit} == {case.name for case in CASES[:2]}
    for row in rows:
        assert row.outcome == expected(row), row
        assert bool(row.message) == (row.outcome != "right")
    assert [row.explanation for row in rows if row.exhibit] == [exhibit.mistake for exhibit in EXHIBITS]


def expected(row: Verdict) -> str:
    """Refused are the exhibits, and ``ties="all"`` on data with ties, and nothing else."""
    tied = any(case.ties for case in CASES if case.name == row.case)
    if row.exhibit or (row.subject.endswith("all") and tied):
        return "refused"
    return "right"


def test_ties_on_an_example() -> None:
    rows = {row.ties: row for row in tie_examples()}
    assert set(rows) == {"first", "last", "split", "all"}
    for ties, row in rows.items():
        dx, dy = np.array(row.dx), np.array(row.dy)
        sums = dx.reshape(2, 2, 2, 2).sum(axis=(1, 3))
        assert (sums > dy).any() if ties == "all" else np.array_equal(sums, dy)
        np.testing.assert_array_equal(pooling.max_pool(np.array([[row.x]]), 2)[0, 0], row.y)
