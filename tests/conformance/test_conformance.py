"""The conformance table: its questions, our answers, and those of whoever is installed."""

from __future__ import annotations

from collections import defaultdict

import pytest

import pooling
from bench.experiments import conformance
from bench.experiments.conformance import FRAMEWORKS, QUESTIONS, answers, installed
from bench.schema.results import Answer


@pytest.fixture(scope="module")
def told() -> dict[str, dict[str, Answer]]:
    """By question and system."""
    found: dict[str, dict[str, Answer]] = defaultdict(dict)
    for answer in answers():
        found[answer.question][answer.subject] = answer
    return found


@pytest.mark.filterwarnings("ignore")  # frameworks warn about their own affairs
def test_everybody_is_asked_everything(told: dict[str, dict[str, Answer]]) -> None:
    assert list(told) == [question.name for question in QUESTIONS]
    for by_subject in told.values():
        assert list(by_subject) == [*pooling.list_backends(), *installed()]
    for question in QUESTIONS:
        assert told[question.name]["reference"].outcome == "same"
        assert all(answer.text for answer in told[question.name].values())


@pytest.mark.filterwarnings("ignore")
def test_backends_differ_in_tie_policy_alone(told: dict[str, dict[str, Answer]]) -> None:
    for question, by_subject in told.items():
        for name in pooling.list_backends():
            answer = by_subject[name]
            assert answer.outcome != "refused", answer
            if answer.outcome == "differs":
                assert "tie" in question, answer
                assert "first" not in pooling.get_backend(name).ties[:1], answer


@pytest.mark.filterwarnings("ignore")
def test_the_original_answer_is_caught(told: dict[str, dict[str, Answer]]) -> None:
    left_over = told["What becomes of cells left over?"]
    assert left_over["scikit-image"].text == "-1 0", "block_reduce fills up with zeros"
    assert left_over["reference"].text == "-1"


def test_without_frameworks_only_ours_are_asked() -> None:
    subjects = {answer.subject for answer in answers(frameworks=False)}
    assert subjects == {*pooling.list_backends(), "scikit-image"}


def test_who_is_not_installed_is_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    nobody = {name: (("no_such_package",), ask) for name, (_, ask) in FRAMEWORKS.items()}
    monkeypatch.setattr(conformance, "FRAMEWORKS", nobody)
    assert installed() == {}
