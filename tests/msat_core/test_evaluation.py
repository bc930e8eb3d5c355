from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from support import synthetic_records, zoo_of

from msat_core import (
    Assessment,
    Candidate,
    CapabilityProfile,
    Records,
    Router,
    RoutingPolicy,
    Scores,
    TableScorer,
    TaskResult,
    Zoo,
)
from msat_core.errors import NoCandidateError, RecordsError
from msat_core.evaluation.comparison import Evaluation, MethodChoices
from msat_core.evaluation.items import choose_all, evaluation_items, item_costs
from msat_core.evaluation.metrics import (
    auc,
    bootstrap_interval,
    brier,
    calibration_error,
    mean_auc,
    paired_p_value,
    reliability,
)
from msat_core.evaluation.pages import evaluation_figures, evaluation_page
from msat_core.evaluation.studies.coverage import coverage
from msat_core.evaluation.studies.pooled import Panel, pooled_gains
from msat_core.evaluation.studies.releases import replay
from msat_core.evaluation.studies.zoos import CandidateFacts, paper_zoos, sample_zoos
from msat_core.evaluation.yardsticks import yardsticks
from msat_core.families import family_of
from msat_core.profiles import Provenance

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
    assert found.reference_winner is not None and found.reference_winner.mean() == pytest.approx(1)


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
    chosen = choose_all(Scores(scores[1:], np.zeros(299, np.int64)), kept, zoo, policy or RoutingPolicy())
    return Evaluation(kept, zoo, MethodChoices(scores[1:], chosen), exam_size=50)


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


class NearScorer(TableScorer):
    """Reads "maths …" as all maths, anything else as all law."""

    def score(self, instructions: Sequence[str], profiles: Sequence[CapabilityProfile]) -> Scores:
        maths = np.array([text.startswith("maths") for text in instructions], np.float32)
        weights = np.stack([maths, 1 - maths], axis=1)
        return replace(super().score(instructions, profiles), tasks=("maths", "law"), task_weights=weights)


@pytest.mark.parametrize(
    "policy",
    [
        RoutingPolicy(max_usd=0.001),
        RoutingPolicy(objective="target", target=0.5),
        RoutingPolicy(objective="target", target=0.7),
        RoutingPolicy(objective="value", usd_weight=100),
    ],
    ids=str,
)
def test_evaluation_chooses_as_a_router_does(policy: RoutingPolicy) -> None:
    """Answers are of other lengths by task, and Chinese has more tokens than its characters say."""
    tokens = {"brief": {"maths": 300.0, "law": 300.0}, "terse in law": {"maths": 4000.0, "law": 20.0}}
    zoo = Zoo.of(
        Candidate(
            profile=CapabilityProfile(
                candidate=name,
                results=tuple(
                    TaskResult(task=task, n_shots=10, n_correct=5, mean_output_tokens=mean)
                    for task, mean in counted.items()
                ),
                provenance=Provenance(source="test"),
            ),
            usd_per_mtok_in=price,
            usd_per_mtok_out=2.0,
        )
        for (name, counted), price in zip(tokens.items(), (0.2, 0.5), strict=True)
    )
    texts = tuple(f"{start} {'词' * 97 * i}" for i in range(16) for start in ("maths", "law"))
    scores = {text: {"brief": 0.7, "terse in law": 0.6999997 if i % 3 else 0.75} for i, text in enumerate(texts)}
    records = Records(
        item_ids=texts,
        benchmarks=("toy",) * len(texts),
        tasks=("any",) * len(texts),
        instructions=texts,
        text_sha256=texts,
        candidates=tuple(zoo.names),
        outcomes=np.ones((2, len(texts)), np.float32),
        output_chars=np.ones((2, len(texts)), np.float32),
    )
    rule, scorer = policy.changed(default="brief"), NearScorer(scores)
    chosen = Assessment(scorer, [c.profile for c in zoo], zoo, []).evaluate(records, rule).ours.chosen
    decisions = Router(scorer, zoo, rule).route_batch(texts)
    assert [zoo.names[m] for m in chosen] == [decision.candidate for decision in decisions]
    assert len(set(chosen)) == 2


def test_zoos_are_of_their_kind() -> None:
    names = [f"{family}-{i}" for i in range(4) for family in ("alpha", "beta", "gamma", "delta")]
    accuracy = np.linspace(0.3, 0.7, len(names))
    new = frozenset(names[:2])
    for kind in ("near-equal", "mixed", "dominant"):
        wanted = frozenset() if kind == "dominant" else new
        zoos = sample_zoos(names, accuracy, kind, n_zoos=20, with_one_of=wanted)
        assert zoos
        assert len(set(zoos)) == len(zoos)
        for zoo in zoos:
            inside = np.sort(accuracy[list(zoo)])
            gap, lead = inside[-1] - inside[0], inside[-1] - inside[-2]
            assert {
                "near-equal": gap <= 0.06,
                "mixed": 0.06 < gap <= 0.25,
                "dominant": lead >= 0.1,
            }[kind]
            assert max(sum(family_of(names[i]) == family_of(names[j]) for i in zoo) for j in zoo) <= 2
            if kind != "dominant":
                assert {names[i] for i in zoo} & new


def test_reliability_bins_by_hand() -> None:
    low, high = reliability(np.array([[0.1, 0.9], [0.3, 0.7]]), np.array([[0.0, 1.0], [1.0, 1.0]]), n_bins=2)
    assert [low.score, high.score] == pytest.approx([0.2, 0.8])
    assert (low.outcome, low.n) == (0.5, 2)
    assert (high.outcome, high.variance) == (1, 0)
    assert low.variance == pytest.approx(0.25)  # 0.5 (n − 1 in the denominator) over two pairs


def test_paired_p_value() -> None:
    assert paired_p_value(np.zeros(50)) == 1
    assert paired_p_value(np.ones(50), n_resamples=999) == pytest.approx(0.002)
    rng = np.random.default_rng(0)
    false_alarms = [paired_p_value(rng.normal(0, 1, 100), n_resamples=200, seed=i) < 0.05 for i in range(200)]
    assert 0.01 < np.mean(false_alarms) < 0.1


def test_report_compares_with_baselines() -> None:
    """Ours knows the outcomes, one baseline is ours again, another is constant."""
    truth = synthetic_records(n_items=300, n_candidates=3).outcomes.T.astype(float)
    ours = evaluation(truth, priced=True)
    constant = MethodChoices(np.full((299, 3), 0.5), np.zeros(299, dtype=np.intp))
    report = replace(ours, baselines={"same": ours.ours, "constant": constant}).to_json()
    assert report["baselines"]["same"]["routed"] == report["overall"]["routed"]
    assert report["baselines"]["constant"]["auc"] == 0.5
    assert report["intervals"]["routed_minus_same"] == [0, 0]
    assert report["p_values"]["routed_minus_same"] == 1
    assert report["p_values"]["routed_minus_constant"] < 0.01
    assert report["cost"]["routed"]["area"] > report["cost"]["constant"]["area"]
    assert report["cost"]["routed"]["cost_at_100%_of_best_single"] <= 1


def test_coverage_by_hand() -> None:
    outcomes = np.array([[1, 0], [0, 1], [np.nan, 0], [1, 1]])
    assert coverage(outcomes, np.array([1, 1, 1, 0])).tolist() == [pytest.approx(1 / 3), pytest.approx(2 / 3)]
    assert np.isnan(coverage(outcomes, np.zeros(4))).all()


def test_releases_keep_the_best_so_far() -> None:
    steps = replay(["2024-03", "2023-01", "2024-01", "2024-02"], np.array([0.1, 0.5, 0.9, 0.7]), n_incumbents=2)
    assert [(s.date, s.newest, s.zoo) for s in steps] == [("2024-02", 3, (2, 1, 3)), ("2024-03", 0, (2, 3, 0))]


def test_paper_zoos_follow_their_pattern() -> None:
    def fact(name: str, size: float | None, chat: bool, released: str = "2024") -> CandidateFacts:
        return CandidateFacts(name, size, chat, released)

    small = [fact("a-7b-chat", 7, True), fact("b-7b-chat", 8, True), fact("a-7b", 7, False)]
    bases = [fact("c-2", 7, False), fact("c-1", 7, False, "2023"), fact("d-30", 30, False)]
    large = [fact("e-70", 70, True), fact("f-100", 100, True), fact("closed", None, True)]
    zoos = paper_zoos([*small, *bases, *large])
    assert zoos["smaller"] == ("a-7b-chat", "b-7b-chat")
    assert zoos["smaller-mixed"] == (*zoos["smaller"], "c-2")
    assert zoos["middle-mixed"] == (*zoos["smaller-mixed"], "d-30")
    assert zoos["larger-mixed"] == (*zoos["middle-mixed"], "e-70", "f-100")
    assert zoos["high-performance"] == ("e-70", "f-100")


def panel(scores: dict[str, np.ndarray], outcomes: np.ndarray) -> Panel:
    n, m = outcomes.shape
    names = tuple(f"c{i}" for i in range(m))
    return Panel(names, frozenset(), ("t",) * n, outcomes, outcomes.mean(axis=0), np.ones((n, m)), scores, exam_size=5)


def test_pooled_gains_of_a_perfect_a_constant_and_a_random_scorer() -> None:
    rng = np.random.default_rng(0)
    outcomes = (rng.random((400, 4)) < 0.5).astype(float)
    one = panel({"perfect": outcomes, "constant": np.tile([0.4, 0.3, 0.2, 0.1], (400, 1))}, outcomes)
    zoos = [[(0, 1, 2), (1, 2, 3)]]
    found = pooled_gains([one], zoos)
    assert found["perfect"]["over"]["oracle"] == [0, 0, 0]
    assert found["perfect"]["share_won"] == 1
    assert found["constant"]["accuracy"] == pytest.approx((outcomes[:, 0].mean() + outcomes[:, 1].mean()) / 2)
    assert found["constant"]["over"]["best_single"][0] <= 0
    assert found["constant"]["ours_minus"][0] == pytest.approx(-found["constant"]["over"]["oracle"][0])
    draws = [panel({"random": rng.random((400, 4))}, outcomes) for _ in range(8)]
    gains = pooled_gains(draws, zoos * 8)["random"]["over"]["random"]
    assert gains[0] == pytest.approx(0, abs=0.04)


def test_pooled_gains_leave_out_what_a_member_lacks() -> None:
    outcomes = np.array([[1, 0, np.nan], [0, 1, 1], [1, 1, 0]])
    one = panel({"ours": np.nan_to_num(outcomes)}, outcomes)
    assert pooled_gains([one], [[(0, 2)]])["ours"]["accuracy"] == 1
    assert pooled_gains([one], [[]]) == {}


def test_page_is_self_contained() -> None:
    pytest.importorskip("matplotlib")
    truth = synthetic_records(n_items=300, n_candidates=3).outcomes.T.astype(float)
    run = evaluation(truth, priced=True)
    run = replace(run, baselines={"<odd> & name": run.ours})
    report = run.to_json()
    figures = evaluation_figures(run, report)
    assert set(figures) == {"gains", "reliability", "cost"}
    text = evaluation_page(run, report, figures)
    assert text.count("data:image/png;base64,") == 3
    assert "&lt;odd&gt; &amp; name" in text
    assert "<odd>" not in text
    assert "http" not in text
