"""Feedback: the router learns from what happened on your own traffic, without training.

python examples/09_feedback.py
"""

from __future__ import annotations

import tempfile
from pathlib import Path

from msat_core import Router, Zoo, pretrained

ASKED = "Which clause of our supplier contract covers late delivery of batch {}?"
NAMES = ("gpt-5.4-mini", "gemini-3-flash", "deepseek-v4-flash")


def main() -> None:
    """Thirty checked answers: the favourite fails two of three, another is right."""
    file = Path(tempfile.mkdtemp()) / "feedback.jsonl"
    zoo = Zoo.load(pretrained.ZOO).subset(NAMES)
    router = Router.from_pretrained(zoo=zoo, feedback=file)
    before = router.route(ASKED.format(1))
    show("before", before.scores)
    other = before.ranking[1]
    for i in range(30):
        router.record(ASKED.format(i), before.candidate, float(i % 3 == 0), source="test")
        router.record(ASKED.format(i), other, 1.0, source="test")
    show("after", router.route(ASKED.format(31)).scores)
    show("elsewhere", router.route("What is the derivative of x^x?").scores)
    again = Router.from_pretrained(zoo=zoo, feedback=file)  # tomorrow, in another process
    print(f"{len(again.feedback)} outcomes were kept; now chosen: {again.route(ASKED.format(32)).candidate}")


def show(when: str, scores: dict[str, float]) -> None:
    print(f"{when:10}", "  ".join(f"{name} {score:.2f}" for name, score in scores.items()))


if __name__ == "__main__":
    main()
