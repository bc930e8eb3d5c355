"""Real questions through `ChatMSAT` to candidates that speak HTTP: who was chosen, why, who was right, what it cost.

    python examples/01_demo.py [--per-task 2]

Nine LLMs stand behind a local OpenAI-compatible server, and what they really scored on questions that reasoning-gym
makes from a seed says whether the server gives the library's right answer or a wrong one. Where the records of MMLU-Pro
are at hand (`MSAT_RECORDS`), seven more follow, with what they really said to 252 of its questions.
"""

from __future__ import annotations

import argparse

from demo_report import Application, console, report, show_choices
from demo_sets import RECORDS, DemoSet, reasoning_set, recorded_set
from langchain_openai import ChatOpenAI
from replay_server import ReplayApp, serve

from langchain_msat import ChatMSAT
from msat_core import RoutingPolicy


def main() -> None:
    """Run both sets, or the first where there are no records."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--per-task", type=int, help="at most so many questions of each of reasoning-gym's tasks")
    route(reasoning_set(parser.parse_args().per_task), usd_a_point=0.10)
    if RECORDS.is_dir():
        route(recorded_set(), usd_a_point=0.05)
    else:
        console.print(f"No records at {RECORDS} (set MSAT_RECORDS): the questions of MMLU-Pro are left out.")


def route(questions: DemoSet, usd_a_point: float) -> None:
    """Route all questions under two policies, over HTTP, and hold the applications against each candidate alone."""
    console.print(questions.about)
    console.print(f"The value policy gives up a point of score to save {usd_a_point:.2f} USD per 1,000 calls.\n")
    policies = {
        "quality": RoutingPolicy(),
        "value": RoutingPolicy(objective="value", usd_weight=10 / usd_a_point),
    }
    applications = []
    with serve(ReplayApp(questions.book)) as url:
        models = {n: ChatOpenAI(model=n, base_url=url, api_key="none", max_retries=0) for n in questions.names}
        chat = ChatMSAT(candidates=models, router=questions.router)
        for label, policy in policies.items():
            answers = chat.batch(questions.texts, {"configurable": {"msat_policy": policy}})
            decisions = [answer.response_metadata["msat"] for answer in answers]
            applications.append(Application(label, [questions.names.index(d["candidate"]) for d in decisions]))
            if label == "quality":
                show_choices(questions, decisions)
    report(questions, applications)


if __name__ == "__main__":
    main()
