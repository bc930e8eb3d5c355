"""A batch job under a price cap: one scorer call for all inputs, candidates called concurrently.

python examples/05_batch_job.py
"""

from __future__ import annotations

from collections import Counter

from langchain_core.language_models.fake_chat_models import FakeListChatModel

from langchain_msat import ChatMSAT
from msat_core import RoutingPolicy

SUBJECTS = ("algebra", "contract law", "organic chemistry", "European history", "Python generators")


def main() -> None:
    """Two hundred questions; the cheapest candidate that reaches 80% takes each."""
    names = ("gpt-6.1-sol", "gemini-3.8-flash", "deepseek-v4-flash", "claude-haiku-5.5")
    chat = ChatMSAT.from_pretrained(
        {name: FakeListChatModel(responses=[f"({name})"]) for name in names},
        policy=RoutingPolicy(objective="target", target=0.8, max_usd=0.001),
    )
    questions = [f"Exam question {i} about {SUBJECTS[i % len(SUBJECTS)]}: explain the main idea." for i in range(200)]
    answers = chat.batch(questions, {"max_concurrency": 16})
    tags = [answer.response_metadata["msat"] for answer in answers]
    print(Counter(tag["candidate"] for tag in tags))
    print(f"expected cost: {sum(tag['cost_usd'] for tag in tags):.4f} USD")


if __name__ == "__main__":
    main()
