"""64 threads and 32 asyncio tasks on one shipped router, while its zoo changes and much goes wrong.

    python examples/reproduce/soak.py [--seconds 600]

Everybody does one thing after another, by chance: routes (with policies, requests and texts that cannot be routed),
records outcomes (right and wrong ones), removes, adds and changes candidates, asks `ChatMSAT` whose models fail or take
long, and gives up waiting. Only the errors that a thing may end with are expected. Nobody may be stuck, the outcomes
kept must be as many as the log holds, and memory must be level from the first third on.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import random
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from langchain_core.language_models import BaseChatModel
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import ChatGeneration, ChatResult
from soaking import UNANSWERED, resident_kib

from langchain_msat import ChatMSAT
from msat_core import (
    Candidate,
    ConfigurationError,
    Fallback,
    FeedbackLog,
    InstructionError,
    NoCandidateError,
    Router,
    RoutingPolicy,
    RoutingRequest,
    ZooError,
)

THREADS, TASKS = 64, 32
STUCK_S = 60.0  # one thing may take so long on a busy machine, and no longer
SAMPLE_S = 10.0
OUTCOMES = 400  # kept by the log
ASKED = ("gpt-5-mini", "claude-haiku-4.5", "deepseek-v3.2")  # ChatMSAT's own; they stay
STAYING = (*ASKED, "gpt-5-nano", "gemini-1.5-pro-002", "mathstral-7B", "Mistral-7B-Instruct-v0.2", "c4ai-command-r-v01")
LEAVING = ("gpt-5", "claude-opus-4.5", "gemini-2.5-flash", "qwen3-32b", "DeepSeek-Coder-V2", "grok-3", "o3", "gpt-4.1")
POLICIES = (
    RoutingPolicy(),
    RoutingPolicy(objective="target", target=0.7),
    RoutingPolicy(objective="value", usd_weight=100),
    RoutingPolicy(max_usd=1e-3),
    RoutingPolicy(max_usd=1e-9),  # nobody is so cheap
    RoutingPolicy(deny=frozenset(LEAVING)),
    RoutingPolicy(allow=frozenset(LEAVING[:2])),  # both may be away
)
TOPICS = ("the law of torts", "matrix inversion", "cell membranes", "hash tables", "bond prices", "trade winds", "Kant")
ASKS = ("What follows from {} in case {}?", "Explain {} to reader {}.", "How many kinds of {} are in chapter {}?")
ODD = ("\ud800 lone", "\x00\x01\x02", "ß" * 5000, "猫" * 3000, "word " * 50_000, "?", "🙂" * 400, '{"a": ' * 2000)
GIVEN_UP = (TimeoutError, asyncio.TimeoutError)
ROUTED = {"route", "route by policy", "route a batch", "ask", "aroute", "aroute by policy", "aask"}
BAD: tuple[Any, ...] = ("", " \n\t", None, 7, b"bytes", ["a list"])


class Shaky(BaseChatModel):
    """A candidate that answers, fails, hangs or says nothing, by chance."""

    name: str

    @property
    def _llm_type(self) -> str:
        return "shaky"

    def _generate(self, messages: list[BaseMessage], stop: Any = None, run_manager: Any = None, **kwargs: Any) -> Any:
        draw = random.random()
        if draw < 0.2:
            raise ConnectionError("down")
        if draw < 0.22:
            time.sleep(2)
        message = AIMessage("" if draw > 0.97 else f"{self.name} says: {messages[-1].text[:20]}")
        return ChatResult(generations=[ChatGeneration(message=message)])


@dataclass(frozen=True)
class Thing:
    """Something to do, and the errors that it may end with."""

    what: str
    do: Callable[[], Any]
    may_raise: tuple[type[BaseException], ...] = ()


class Soak:
    """The router, what happened to it, and who is at what since when."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "feedback.jsonl"
        self.log = FeedbackLog(self.path, max_outcomes=OUTCOMES)
        shipped = Router.from_pretrained(zoo=[*STAYING, *LEAVING])
        self.router = Router(shipped.scorer, shipped.zoo, feedback=self.log)
        self.away = {name: shipped.zoo[name] for name in LEAVING}
        self.chat = ChatMSAT(
            candidates={name: Shaky(name=name) for name in ASKED}, router=self.router, fallback=Fallback(timeout_s=1.0)
        )
        self.ended, self.noting = threading.Event(), threading.Lock()
        self.done: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self.since: dict[str, tuple[str, float]] = {}
        self.longest: dict[str, float] = {}
        self.numbers = iter(range(1 << 60))

    def text(self) -> str:
        """An instruction, now and then an odd one."""
        if random.random() < 0.02:
            return random.choice(ODD)
        return random.choice(ASKS).format(random.choice(TOPICS), random.randrange(10_000))

    def note(self, who: str, thing: Thing, started: float, error: BaseException | None) -> None:
        """One thing ended."""
        what = thing.what
        with self.noting:
            self.longest[what] = max(self.longest.get(what, 0.0), time.monotonic() - started)
            self.done[what if error is None else f"{what}: {type(error).__name__}"] += 1
            if error is not None and not isinstance(error, thing.may_raise):
                self.errors[f"{what}: {type(error).__name__}: {error}"[:300]] += 1
            del self.since[who]

    def change_zoo(self) -> None:
        """Somebody leaves, comes back, costs more, or is new and leaves again."""
        zoo, draw, name = self.router.zoo, random.random(), random.choice(LEAVING)
        if draw < 0.35:
            zoo.remove(name)
        elif draw < 0.7:
            zoo.add(self.away[name])
        elif draw < 0.85:
            zoo.set(name, usd_per_mtok_in=random.random(), usd_per_mtok_out=random.random())
        else:
            new = f"new-{next(self.numbers)}"
            zoo.add(Candidate(profile=self.away[name].profile.model_copy(update={"candidate": new})))
            self.router.record(self.text(), new, random.random(), source="test")
            zoo.remove(new)

    def bad_record(self) -> None:
        """An outcome that cannot be; it must be refused."""
        name, outcome, at = random.choice(
            [(ASKED[0], float("nan"), None), (ASKED[0], 2.0, None), ("nobody", 1.0, None), (ASKED[0], 1.0, 0.0)]
        )
        self.router.record(self.text(), name, outcome, at=at)
        raise AssertionError("a bad outcome was taken")

    def next_thing(self) -> Thing:
        """What a thread does next."""
        router, draw = self.router, random.random()
        if draw < 0.5:
            return Thing("route", lambda: router.route(self.text()))
        if draw < 0.65:
            request = RoutingRequest(context_chars=random.randrange(10_000), tools=random.random() < 0.3)
            policy = random.choice(POLICIES)
            return Thing(
                "route by policy",
                lambda: router.route(self.text(), policy=policy, request=request),
                (NoCandidateError,),
            )
        if draw < 0.7:
            return Thing("route nonsense", lambda: router.route(random.choice(BAD)), (InstructionError,))
        if draw < 0.75:
            return Thing("route a batch", lambda: router.route_batch([self.text() for _ in range(5)]))
        if draw < 0.85:
            name, outcome = random.choice(STAYING), random.random()
            return Thing("record", lambda: router.record(self.text(), name, outcome, source="judge"))
        if draw < 0.87:
            return Thing("record nonsense", self.bad_record, (ConfigurationError, ZooError))
        if draw < 0.92:
            return Thing("change the zoo", self.change_zoo, (ZooError,))
        return Thing("ask", lambda: self.chat.invoke(self.text()), UNANSWERED)

    def next_async_thing(self) -> Thing:
        """What a task does next; it is a coroutine."""
        router, draw = self.router, random.random()
        if draw < 0.5:
            return Thing("aroute", lambda: router.aroute(self.text()))
        if draw < 0.6:
            patience = random.random() / 10
            return Thing("aroute, given up", lambda: asyncio.wait_for(router.aroute(self.text()), patience), GIVEN_UP)
        if draw < 0.7:
            policy = random.choice(POLICIES)
            return Thing("aroute by policy", lambda: router.aroute(self.text(), policy=policy), (NoCandidateError,))
        if draw < 0.8:
            name, outcome = random.choice(STAYING), random.random()
            return Thing("arecord", lambda: router.arecord(self.text(), name, outcome))
        return Thing("aask", lambda: self.chat.ainvoke(self.text()), UNANSWERED)

    def work(self, who: str) -> None:
        """A thread's life."""
        while not self.ended.is_set():
            thing, started = self.next_thing(), time.monotonic()
            self.since[who] = thing.what, started
            try:
                thing.do()
            except BaseException as error:
                self.note(who, thing, started, error)
            else:
                self.note(who, thing, started, None)

    async def awork(self, who: str) -> None:
        """A task's life."""
        while not self.ended.is_set():
            thing, started = self.next_async_thing(), time.monotonic()
            self.since[who] = thing.what, started
            try:
                await thing.do()
            except Exception as error:
                self.note(who, thing, started, error)
            else:
                self.note(who, thing, started, None)

    async def tasks(self) -> None:
        """All tasks, on one loop; what is stuck is left when time is up."""
        running = [asyncio.create_task(self.awork(f"task {i}")) for i in range(TASKS)]
        while not self.ended.is_set():
            await asyncio.sleep(0.5)
        await asyncio.wait(running, timeout=STUCK_S)

    def run(self, seconds: float) -> dict[str, Any]:
        """Everybody at once, for so long; what came of it."""
        workers = [threading.Thread(target=self.work, args=(f"thread {i}",), daemon=True) for i in range(THREADS)]
        workers.append(threading.Thread(target=asyncio.run, args=(self.tasks(),), daemon=True))
        self.router.route(self.text())  # loads the encoder
        started, memory, stuck = time.monotonic(), list[tuple[float, float]](), set[str]()
        for worker in workers:
            worker.start()
        while time.monotonic() - started < seconds:
            time.sleep(min(SAMPLE_S, seconds))
            gc.collect()
            memory.append((resident_kib() / 1024, len(gc.get_objects())))
            stuck |= self.stuck()
            print(
                f"{time.monotonic() - started:.0f} s, {self.n_routes} routes, {memory[-1]}", file=sys.stderr, flush=True
            )
        self.ended.set()
        for worker in workers:
            worker.join(STUCK_S)
        stuck |= self.stuck() | {worker.name for worker in workers if worker.is_alive()}
        third = max(len(memory) // 3, 1)
        middle, last = memory[third : 2 * third] or memory, memory[-third:]
        growth = [sum(row[i] for row in last) / len(last) - sum(row[i] for row in middle) / len(middle) for i in (0, 1)]
        return {
            "seconds": round(time.monotonic() - started),
            "routes": self.n_routes,
            "done": dict(sorted(self.done.items())),
            "unexpected": dict(self.errors),
            "stuck": sorted(stuck),
            "longest_s": {what: round(value, 1) for what, value in sorted(self.longest.items())},
            "resident_mb": [round(row[0]) for row in (memory[0], middle[0], memory[-1])],
            "growth_of_last_third": {"resident_mb": round(growth[0], 1), "objects": round(growth[1])},
            "outcomes_kept": len(self.log),
            "outcomes_read_again": len(FeedbackLog(self.path, max_outcomes=OUTCOMES)),
            "threads_left": threading.active_count() - 1,
        }

    @property
    def n_routes(self) -> int:
        """Decisions made: a batch is five, an answer one."""
        return sum(n * (5 if what == "route a batch" else 1) for what, n in list(self.done.items()) if what in ROUTED)

    def stuck(self) -> set[str]:
        """Who has been at one thing for too long."""
        now = time.monotonic()
        return {f"{who}: {what}" for who, (what, since) in list(self.since.items()) if now - since > STUCK_S}


def main() -> None:
    """Run, print one object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=600)
    seconds = parser.parse_args().seconds
    random.seed(0)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        report = Soak(Path(folder)).run(seconds)
    print(json.dumps(report, indent=1, ensure_ascii=False))
    sys.exit(bool(report["unexpected"] or report["stuck"]))


if __name__ == "__main__":
    main()
