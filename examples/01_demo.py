"""Real instructions through `ChatMSAT` to candidates that speak HTTP: who was chosen, why, who was right, what it cost.

    python examples/01_demo.py

Seven LLMs stand behind a local OpenAI-compatible server that replays what they really answered to 252 questions of
MMLU-Pro. Where those records are absent, the same app routes instructions of its own over the shipped zoo, and the
server's answers are stand-ins.
"""

from __future__ import annotations

import json
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
from langchain_openai import ChatOpenAI
from replay_server import AnswerBook, ReplayApp, serve
from rich.console import Console
from rich.table import Table
from rich.text import Text

from langchain_msat import ChatMSAT
from msat_core import Router, RoutingPolicy, Zoo, pretrained

RECORDS = Path(os.environ.get("MSAT_RECORDS", Path(__file__).resolve().parents[2] / "shared" / "records")) / "mmlu_pro"
OUTPUTS = RECORDS / "outputs_sample.parquet"
SHOWN = 6
POLICIES = {
    "quality": RoutingPolicy(),
    "value (2 points are worth 0.10 USD per 1000 calls)": RoutingPolicy(objective="value", usd_weight=0.02 / 0.0001),
}
OWN_INSTRUCTIONS = (
    "A farmer has 35 animals, chickens and rabbits, with 94 legs in all. How many rabbits are there?",
    "Which enzyme unwinds the DNA double helix during replication, and what does it need for energy?",
    "Under which circumstances can a contract be rescinded for innocent misrepresentation?",
    "What does this Python print? print([x * y for x, y in zip(range(4), range(4, 0, -1))])",
    "Prove that the square root of 3 is irrational.",
    "Summarise the main causes of the French Revolution in two sentences.",
)
console = Console(width=110, highlight=False)


def main() -> None:
    """Run with the recorded answers where there are any."""
    if OUTPUTS.is_file():
        replay_recorded()
    else:
        console.print(f"No recorded answers at {RECORDS} (set MSAT_RECORDS): routing instructions of our own.\n")
        route_own()


def chat_over(names: Sequence[str], url: str, router: Router) -> ChatMSAT:
    """A router over one OpenAI-compatible chat model a candidate."""
    return ChatMSAT(
        candidates={name: ChatOpenAI(model=name, base_url=url, api_key="none", max_retries=0) for name in names},
        router=router,
    )


def prices_of_the_time(names: Sequence[str]) -> dict[str, dict[str, float]]:
    """What the candidates cost when these answers were recorded: some are no longer sold."""
    fields = ("usd_per_mtok_in", "usd_per_mtok_out")
    rows = json.loads((RECORDS / "models.json").read_text(encoding="utf-8"))
    return {row["model"]: {field: row[field] for field in fields} for row in rows if row["model"] in names}


def replay_recorded() -> None:
    """Route all recorded questions under each policy and hold the app against each candidate alone."""
    rows = pq.read_table(OUTPUTS).to_pylist()
    names = list(dict.fromkeys(row["model"] for row in rows))
    wanted = {row["item_id"] for row in rows}
    table = pq.read_table(RECORDS / "items.parquet", columns=["item_id", "instruction", "answer"]).to_pylist()
    items = {row["item_id"]: row for row in table if row["item_id"] in wanted}
    right = {(r["model"], r["item_id"]): r["extracted_answer"] == items[r["item_id"]]["answer"] for r in rows}
    chars = {(r["model"], r["item_id"]): len(r["output"]) for r in rows}
    zoo = Zoo.load(pretrained.ZOO).subset(names)
    zoo.set_all(prices_of_the_time(names))
    router = Router.from_pretrained(zoo=zoo)
    result = Table("application", "right", "USD", title=f"{len(items)} recorded questions")
    with serve(ReplayApp(AnswerBook.from_outputs(RECORDS / "items.parquet", OUTPUTS))) as url:
        chat = chat_over(names, url, router)
        for label, policy in POLICIES.items():
            questions = [item["instruction"] for item in items.values()]
            answers = chat.batch(questions, {"configurable": {"msat_policy": policy}})
            chosen = {item_id: a.response_metadata["msat"] for item_id, a in zip(items, answers, strict=True)}
            picks = {item_id: decision["candidate"] for item_id, decision in chosen.items()}
            if label == "quality":
                show_choices(items, chosen, right)
            result.add_row(f"routed: {label}", *totals(picks, items, right, chars, zoo), style="bold")
    for name in names:
        result.add_row(f"{name} alone", *totals(dict.fromkeys(items, name), items, right, chars, zoo))
    oracle = sum(any(right[name, item_id] for name in names) for item_id in items) / len(items)
    result.add_row("someone was right (oracle)", f"{oracle:.1%}", "")
    console.print(result)


def show_choices(
    items: dict[str, dict[str, str]], chosen: dict[str, dict[str, Any]], right: dict[tuple[str, str], bool]
) -> None:
    """A handful of decisions, one from each stretch of the list."""
    every = max(1, len(items) // SHOWN)
    for item_id in list(items)[::every][:SHOWN]:
        decision = chosen[item_id]
        console.print(Text(items[item_id]["instruction"].strip().splitlines()[0][:100], style="bold"))
        verdict = "right" if right[decision["candidate"], item_id] else "wrong"
        others = [n for n in decision["scores"] if n != decision["candidate"] and right[n, item_id]]
        console.print(f"  → {decision['reason']}", markup=False)
        console.print(f"  {verdict}; also right: {', '.join(others) or 'nobody'}\n")


def totals(
    picks: dict[str, str],
    items: dict[str, dict[str, str]],
    right: dict[tuple[str, str], bool],
    chars: dict[tuple[str, str], int],
    zoo: Zoo,
) -> tuple[str, str]:
    """Share of right answers, and the price of prompts and answers at four characters a token; "?" where unknown."""
    usd = 0.0
    for item_id, name in picks.items():
        candidate = zoo[name]
        if candidate.usd_per_mtok_in is None or candidate.usd_per_mtok_out is None:
            usd = math.nan
            continue
        usd += len(items[item_id]["instruction"]) / 4 * candidate.usd_per_mtok_in / 1e6
        usd += chars[name, item_id] / 4 * candidate.usd_per_mtok_out / 1e6
    share = sum(right[name, item_id] for item_id, name in picks.items()) / len(picks)
    return f"{share:.1%}", "?" if math.isnan(usd) else f"{usd:.4f}"


def route_own() -> None:
    """The shipped zoo over instructions of our own; the server says who would have answered."""
    router = Router.from_pretrained()
    names = router.zoo.names
    book = AnswerBook({}, {name: {} for name in names})
    with serve(ReplayApp(book, unknown_text="(a stand-in's answer)")) as url:
        chat = chat_over(names, url, router)
        for text, answer in zip(OWN_INSTRUCTIONS, chat.batch(list(OWN_INSTRUCTIONS)), strict=True):
            console.print(Text(text, style="bold"))
            console.print(f"  → {answer.response_metadata['msat']['reason']}\n", markup=False)


if __name__ == "__main__":
    main()
