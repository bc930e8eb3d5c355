"""Shadow mode: one candidate goes on serving, the router only watches, and a log says whether routing would pay.

python examples/11_shadow.py
"""

from __future__ import annotations

import random
import tempfile
from pathlib import Path

from msat_core import Router, RoutingPolicy, Zoo, pretrained, trial_from_log, write_shadow

INCUMBENT, CHEAP = "gpt-6.1-sol", "deepseek-v4-flash"
ASKED = {
    "Mrs. Miller buys {} apples at {} cents each. How much does she pay?": {INCUMBENT: 0.87, CHEAP: 0.96},
    "A train leaves at {} and must make {} stops; prove that its schedule is optimal.": {INCUMBENT: 0.6, CHEAP: 0.55},
}


def main() -> None:
    """A day of traffic in shadow mode, with three answers in ten from somebody else; then the verdict."""
    folder, rng = Path(tempfile.mkdtemp()), random.Random(0)
    zoo = Zoo.load(pretrained.ZOO).subset([INCUMBENT, CHEAP])
    policy = RoutingPolicy(objective="value", usd_weight=30, observe=INCUMBENT, explore=0.3)
    router = Router.from_pretrained(zoo=zoo, policy=policy, decisions=folder / "decisions.jsonl")

    asked = [
        (kind.format(rng.randrange(900), rng.randrange(900)), right) for kind in ASKED for right in [ASKED[kind]] * 300
    ]
    decisions = router.route_batch([text for text, _ in asked])
    outcomes = {  # your code calls decision.candidate, and finds out how right the answer was
        str(decision.id): float(rng.random() < right[decision.candidate])
        for (_, right), decision in zip(asked, decisions, strict=True)
    }
    print(decisions[0].reason)

    result = trial_from_log(folder / "decisions.jsonl", outcomes)
    gain, saving = result.recommended.gain, result.recommended.saving
    assert gain is not None and saving is not None  # there was exploration, and there are prices
    print(f"verdict: {result.advice}; the policy's choices would save {saving.value:.0%} of {INCUMBENT}'s cost,")
    print(f"and be right on {100 * gain.value:+.1f} points more [{100 * gain.low:+.1f}, {100 * gain.high:+.1f}]")
    print(f"the page: {write_shadow(result, folder / 'report')}")


if __name__ == "__main__":
    main()
