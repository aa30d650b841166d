"""Sign test and kappas against values worked by hand or published with them."""

import pytest

from roslin.evaluate.pairwise import cohen, fleiss, sign_test


@pytest.mark.parametrize(
    ("wins", "losses", "p"),
    [
        (0, 0, 1.0),
        (1, 0, 1.0),
        (3, 3, 1.0),
        (5, 0, 2 / 32),
        (8, 2, 2 * (1 + 10 + 45) / 1024),
        (2, 8, 2 * (1 + 10 + 45) / 1024),
        (30, 0, 2.0**-29),
    ],
)
def test_the_sign_test_is_exact(wins: int, losses: int, p: float) -> None:
    assert sign_test(wins, losses) == pytest.approx(p, rel=1e-12)


def test_cohens_kappa_of_a_table_worked_by_hand() -> None:
    """20 both yes, 5 yes and no, 10 no and yes, 15 both no: p_o = 0.7, p_e = 0.5 * 0.6 + 0.5 * 0.4 = 0.5."""
    first = ["yes"] * 25 + ["no"] * 25
    second = ["yes"] * 20 + ["no"] * 5 + ["yes"] * 10 + ["no"] * 15
    found = cohen(("x", "y"), first, second)
    assert (found.items, found.share) == (50, 0.7)
    assert found.kappa == pytest.approx(0.4)


def test_kappa_at_its_ends() -> None:
    assert cohen(("x", "y"), ["a", "b"], ["a", "b"]).kappa == pytest.approx(1.0)
    assert cohen(("x", "y"), ["a", "b"], ["b", "a"]).kappa == pytest.approx(-1.0)
    same = cohen(("x", "y"), ["a"] * 3, ["a"] * 3)
    assert (same.share, same.kappa) == (1.0, None)
    assert fleiss(("x", "y", "z"), [["a", "a", "a"], ["b", "b", "b"]]).kappa == pytest.approx(1.0)
    assert fleiss(("x", "y", "z"), [["a"] * 3] * 7).kappa is None


def test_fleiss_kappa_of_ten_items_and_fourteen_judges() -> None:
    """Counts of five verdicts an item; the sums worked by hand: observed 0.378, expected 0.213, kappa 0.210."""
    counts = [
        (0, 0, 0, 0, 14),
        (0, 2, 6, 4, 2),
        (0, 0, 3, 5, 6),
        (0, 3, 9, 2, 0),
        (2, 2, 8, 1, 1),
        (7, 7, 0, 0, 0),
        (3, 2, 6, 3, 0),
        (2, 5, 3, 2, 2),
        (6, 5, 2, 1, 0),
        (0, 2, 2, 3, 7),
    ]
    rows = [[verdict for verdict, count in enumerate(row) for _ in range(count)] for row in counts]
    found = fleiss(tuple(map(str, range(14))), rows)
    assert found.share == pytest.approx(0.378, abs=5e-4)
    assert found.kappa == pytest.approx(0.210, abs=5e-4)
