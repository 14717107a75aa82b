"""The fuzz run's corpus, replayed: calls that once led somewhere new, or ended a run. `make fuzz` begins with all of them."""

from __future__ import annotations

import pytest

from tests import fuzz


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_the_corpus_leads_to_answers_and_errors_of_ours() -> None:
    seeds = fuzz.seeds()
    assert len(seeds) > 100
    ended = set()
    for seed in seeds[::3]:  # what they compile takes minutes
        fuzz.replay(seed)
        ended.update(fuzz.outcomes)
    assert {outcome.split()[0] for outcome in ended} == {operator.__name__ for operator in fuzz.OPERATORS}
    assert any("PoolingError" in outcome for outcome in ended)
    assert any("DTypeError" in outcome for outcome in ended)
