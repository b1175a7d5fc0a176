"""Search in a latent space: better than chance, independent of other starts, and what it refuses."""

import math
from itertools import pairwise

import numpy as np
import pytest
from letters import LetterJudge, Letters, failing, letters_after, unpaired

from bionemo_core.errors import ConfigError, DataError
from bionemo_core.inference.evolution import Evolution, Perturbation, rank_candidates
from bionemo_core.inference.latent_search import ModelLatents, SearchResult, SearchSettings, of_each_text, optimize

STARTS = ["MMMMMMMM", "ABCDEFGH", "KLMNKLMN"]
SETTINGS = SearchSettings(population=12, iterations=15)


def search(starts=STARTS, oracle="late", settings=SETTINGS, **options):
    return optimize(Letters(), starts, oracle, LetterJudge(), settings, **options)


def test_evolution_finds_the_minimum_of_a_sphere_and_beats_perturbation():
    target = np.linspace(-1, 1, 10)
    best = {}
    for kind in (Evolution, Perturbation):
        proposer = kind(np.zeros(10), SearchSettings(population=20, iterations=60, sigma=0.5), 0)
        lowest = math.inf
        for _ in range(60):
            distance = ((proposer.ask() - target) ** 2).sum(axis=1)
            lowest = min(lowest, distance.min())
            proposer.tell(np.argsort(np.argsort(distance)).astype(float))
        best[kind] = lowest
    assert best[Evolution] < 1e-2 < best[Perturbation]


def test_scores_rise_and_exceed_those_of_random_perturbation():
    found = search()
    assert [step.text for step in found.first] == STARTS
    for number in range(len(STARTS)):
        own = [step for step in found.steps if step.start == number]
        assert [step.iteration for step in own] == list(range(16))
        assert [step.oracle_calls for step in own] == [12 * i for i in range(16)]
        assert all(before.score <= after.score for before, after in pairwise(own))
        assert own[-1].score == letters_after(own[-1].text)
    chance = search(settings=SearchSettings(population=12, iterations=15, algorithm="random"))
    assert [step.oracle_calls for step in chance.best] == [step.oracle_calls for step in found.best]
    assert found.mean_gain > chance.mean_gain + 1.0


def test_scores_can_be_minimised():
    found = search(settings=SearchSettings(population=12, iterations=10, minimize=True))
    assert all(best.score < first.score for first, best in zip(found.first, found.best, strict=True))
    assert found.mean_gain > 0


def test_results_have_the_minimum_similarity():
    found = search(settings=SearchSettings(population=12, iterations=15, minimum_similarity=0.5))
    judge = LetterJudge()
    for step in found.steps:
        assert step.similarity == judge.similarity([step.text], [STARTS[step.start]])[0] >= 0.5
    assert all(best.score > first.score for first, best in zip(found.first, found.best, strict=True))


@pytest.mark.processes
@pytest.mark.parametrize("algorithm", ["cma-es", "random"])
def test_results_depend_on_neither_other_starts_nor_workers(algorithm):
    settings = SearchSettings(population=6, iterations=4, algorithm=algorithm)
    alone = [step for step in search(STARTS[:1], settings=settings).steps]
    together = search(settings=settings)
    assert [step for step in together.steps if step.start == 0] == alone
    assert search(settings=settings, num_workers=2) == together


def test_all_candidates_are_decoded_in_one_batch():
    space = Letters()
    optimize(space, STARTS, "late", LetterJudge(), SearchSettings(population=6, iterations=4))
    assert space.decoded == [18] * 4


@pytest.mark.parametrize("num_workers", [0, 2])
def test_a_stopped_search_ends_with_the_iterations_of_all_starts(num_workers):
    settings, calls = SearchSettings(population=6, iterations=50), []

    def stop():
        calls.append(True)
        return len(calls) > 5

    found = search(settings=settings, num_workers=num_workers, stop=stop)
    complete = search(settings=SearchSettings(population=6, iterations=found.iterations))
    assert found.steps == complete.steps and 0 < found.iterations < 50
    assert [step.start for step in found.best] == [0, 1, 2]
    if not num_workers:
        assert found.iterations == 5  # `stop` is called after the starts and after each iteration


def test_a_result_has_the_iterations_that_all_starts_have_done():
    steps = search(settings=SearchSettings(population=6, iterations=4)).steps
    received = [step for step in reversed(steps) if (step.start, step.iteration) != (1, 4)]
    found = SearchResult.of_steps(SETTINGS, received)
    assert found.steps == [step for step in steps if step.iteration < 4] and found.starts == STARTS
    assert found.iterations == 3 and [step.start for step in found.best] == [0, 1, 2]


def test_the_seed_decides():
    first, same, other = (search(settings=SearchSettings(population=6, iterations=3, seed=s)) for s in (1, 1, 2))
    assert first == same
    assert first.steps != other.steps


def test_a_user_function_is_an_oracle():
    by_name, by_function = search(), search(oracle=of_each_text(letters_after))
    assert by_function == by_name
    assert search(oracle=lambda texts, starts: [letters_after(text) for text in texts]) == by_name


def test_ranks_put_the_similar_first_by_score_then_the_others_by_similarity_then_the_invalid():
    scores = np.array([1.0, 3.0, math.nan, 2.0, 9.0, 2.0, math.nan])
    similarity = np.array([0.9, 0.3, 0.0, 0.5, 0.1, 0.6, 0.0])
    assert rank_candidates(scores, similarity, 0.4).tolist() == [1, 2, 4, 0, 3, 0, 4]


def test_invalid_candidates_are_counted_and_never_best():
    found = search(["YYYYYYYM"], settings=SearchSettings(population=12, iterations=6, sigma=4.0))
    assert all(step.valid < 1.0 for step in found.steps[1:])
    assert all(LetterJudge().canonical(step.text) for step in found.steps)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"oracle": "lat"}, "Did you mean 'late'|Known: late, alike"),
        ({"oracle": lambda texts, starts: [math.nan] * len(texts)}, "no score for start 1"),
        ({"oracle": unpaired}, "got an array of shape \\(1,\\) for 3 texts, expected \\(3,\\)"),
    ],
)
def test_oracles_that_cannot_be_used_are_refused(changes, message):
    with pytest.raises(ConfigError, match=message):
        search(**changes)


@pytest.mark.processes
def test_what_an_oracle_raises_in_a_worker_is_said():
    with pytest.raises(ConfigError, match="it raised ValueError: no such word"):
        search(oracle=failing, num_workers=1)


def test_invalid_starts_are_refused():
    with pytest.raises(DataError, match="start 2, 'A-', is not a valid word"):
        search(["MMMMMMMM", "A-"])
    with pytest.raises(DataError, match="there are no starts"):
        search([])


@pytest.mark.parametrize(
    "wrong",
    [
        {"algorithm": "cma"},
        {"population": 1},
        {"iterations": 0},
        {"sigma": 0.0},
        {"scaled_radius": -1.0},
        {"minimum_similarity": 1.5},
    ],
    ids=str,
)
def test_settings_out_of_range_are_refused_by_name(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        SearchSettings(**wrong)


def test_a_models_latents():
    from tiny_models import HIDDEN, LATENTS, TEXTS, inference

    space = ModelLatents(inference("perceiver"))
    latents = space.encode(TEXTS)
    assert latents.shape == (len(TEXTS), LATENTS * HIDDEN)
    assert space.decode(latents) == inference("perceiver").hiddens_to_seq(*space.inference.seq_to_hiddens(TEXTS))
    with pytest.raises(ConfigError, match="no latent space of fixed size"):
        ModelLatents(inference())
