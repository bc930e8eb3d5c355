from __future__ import annotations

import numpy as np
import pytest
from support import synthetic_records, zoo_of

from msat_core import Candidate, RoutingPolicy, Zoo
from msat_core.errors import NoCandidateError, RecordsError
from msat_core.evaluation.items import choose_all, evaluation_items, item_costs
from msat_core.evaluation.metrics import auc, bootstrap_interval, brier, calibration_error, mean_auc
from msat_core.evaluation.report import Evaluation, Routing
from msat_core.evaluation.yardsticks import yardsticks
from msat_core.evaluation.zoos import sample_zoos
from msat_core.families import family_of

OUTCOMES = np.array([[1, 0], [1, 0], [0, 1], [0, 0]], dtype=float)


def test_yardsticks_by_hand() -> None:
    found = yardsticks(OUTCOMES, ("t", "t", "u", "u"), np.array([0.4, 0.5]), exam_size=1)
    means = {name: values.mean() for name, values in vars(found).items()}
    assert means["random"] == 0.375
    assert means["best_single"] == 0.5
    assert means["best_by_aptitude"] == 0.25
    assert means["per_task_best"] == 0.75
    assert means["oracle"] == 0.75
    assert 0.2 < means["reference_winner"] < 0.5


def test_reference_winner_of_a_clear_case() -> None:
    """One candidate always right: every exam's winner, always right on what is left."""
    outcomes = np.stack([np.ones(40), np.zeros(40)], axis=1)
    found = yardsticks(outcomes, ("t",) * 40, np.zeros(2), exam_size=10)
    assert found.reference_winner.mean() == pytest.approx(1)


def test_perfect_random_and_constant_scores() -> None:
    rng = np.random.default_rng(0)
    truth = rng.random((4000, 1))
    outcomes = (rng.random(truth.shape) < truth).astype(float)
    assert auc(outcomes[:, 0], outcomes[:, 0]) == 1
    assert auc(rng.random(4000), outcomes[:, 0]) == pytest.approx(0.5, abs=0.03)
    assert auc(np.full(4000, 0.5), outcomes[:, 0]) == 0.5
    assert auc(truth[:, 0], np.ones(4000)) is None
    assert mean_auc(np.hstack([truth, truth]), np.hstack([outcomes, np.ones_like(outcomes)])) == auc(
        truth[:, 0], outcomes[:, 0]
    )
    perfect = calibration_error(truth, outcomes)
    assert perfect.debiased < perfect.plain < 0.03
    constant = np.full_like(truth, outcomes.mean())
    assert brier(constant, outcomes) == pytest.approx(outcomes.var())
    assert calibration_error(np.full_like(truth, 0.9), outcomes).plain == pytest.approx(0.9 - outcomes.mean(), abs=0.02)


def test_interval_covers_the_mean() -> None:
    rng = np.random.default_rng(1)
    hits = 0
    for seed in range(100):
        low, high = bootstrap_interval(rng.normal(0.3, 1, 200), n_resamples=200, seed=seed)
        hits += low <= 0.3 <= high
    assert 85 <= hits <= 100


def evaluation(scores: np.ndarray, policy: RoutingPolicy | None = None, priced: bool = False) -> Evaluation:
    records = synthetic_records(n_items=300, n_candidates=3)
    zoo = Zoo(
        candidates=tuple(
            Candidate(profile=c.profile, **({"usd_per_mtok_in": i, "usd_per_mtok_out": i} if priced else {}))
            for i, c in enumerate(zoo_of(**dict.fromkeys(records.candidates, 0.5)))
        )
    )
    kept = evaluation_items(records, zoo, frozenset({records.text_sha256[0]}))
    assert len(kept) == 299
    chosen = choose_all(scores[1:], kept, zoo, policy or RoutingPolicy())
    return Evaluation(kept, zoo, Routing(scores[1:], chosen), exam_size=50)


def test_report_keeps_its_contract() -> None:
    truth = synthetic_records(n_items=300, n_candidates=3).outcomes.T.astype(float)
    report = evaluation(truth, priced=True).to_json()
    assert set(report) >= {"overall", "benchmarks", "intervals", "cost_usd"}
    assert list(report["benchmarks"]) == ["toy"]
    keys = {"n_instructions", "n_candidates", "random", "best_single", "best_by_aptitude", "reference_winner"}
    keys |= {"per_task_best", "oracle", "routed", "auc", "ece", "ece_debiased", "brier"}
    assert set(report["overall"]) == keys
    assert report["overall"]["routed"] == report["overall"]["oracle"]  # scores that know the outcomes
    assert report["overall"]["auc"] == 1
    assert report["overall"]["brier"] == 0
    assert report["quality_cost_curve"][0]["accuracy"] == report["overall"]["routed"]
    low, high = report["intervals"]["routed_minus_best_single"]
    assert 0 < low < high


def test_constant_scores_choose_one_and_gain_nothing() -> None:
    report = evaluation(np.tile([0.2, 0.9, 0.3], (300, 1))).to_json()
    assert report["overall"]["routed"] == pytest.approx(report["candidates"]["familyb-1"])
    assert report["overall"]["auc"] == 0.5
    assert "cost_usd" not in report


def test_costs_are_characters_times_prices() -> None:
    run = evaluation(np.zeros((300, 3)), priced=True)
    chars = len(run.records.instructions[0])
    assert item_costs(run.records, run.zoo)[0, 2] == pytest.approx((chars / 4 + 250) * 2 / 1e6)


def test_limits_that_exclude_everybody_are_said() -> None:
    with pytest.raises(NoCandidateError, match="On the records"):
        evaluation(np.zeros((300, 3)), RoutingPolicy(max_usd=0.1))
    records = synthetic_records(n_items=6, n_candidates=3)
    with pytest.raises(RecordsError, match="No item is left"):
        evaluation_items(records, zoo_of(**dict.fromkeys(records.candidates, 0.5)), frozenset(records.text_sha256))


def test_zoos_are_of_their_kind() -> None:
    names = [f"{family}-{i}" for i in range(4) for family in ("alpha", "beta", "gamma", "delta")]
    accuracy = np.linspace(0.3, 0.7, len(names))
    new = frozenset(names[:2])
    for kind in ("near-equal", "mixed", "dominant"):
        wanted = frozenset() if kind == "dominant" else new
        zoos = sample_zoos(names, accuracy, kind, n_zoos=20, with_one_of=wanted)  # type: ignore[arg-type]
        assert zoos
        assert len(set(zoos)) == len(zoos)
        for zoo in zoos:
            inside = np.sort(accuracy[list(zoo)])
            spread, lead = inside[-1] - inside[0], inside[-1] - inside[-2]
            assert {"near-equal": spread <= 0.06, "mixed": 0.06 < spread <= 0.25, "dominant": lead >= 0.1}[kind]
            assert max(sum(family_of(names[i]) == family_of(names[j]) for i in zoo) for j in zoo) <= 2
            if kind != "dominant":
                assert {names[i] for i in zoo} & new
