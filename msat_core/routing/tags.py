"""The decision as an answer carries it: small, sealed, and enough to learn from.

An answer's metadata comes back with the conversation, and may have passed through anybody's hands. What routes is
believed only where its seal is right: a keyed digest of who answered, for which router and in which turn.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import secrets
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from msat_core.errors import ConfigurationError
from msat_core.routing.feedback import FeedbackSource

if TYPE_CHECKING:
    from msat_core.routing.attempts import Attempts
    from msat_core.routing.dispatch import RoutingAsk
    from msat_core.routing.router import Router

TAG = "msat"
KEY_VARIABLE = "MSAT_TAG_KEY"  # a secret shared by processes that serve the same conversations
TOP_SCORES = 5  # kept in a tag; chosen: a zoo of hundreds would fill every message
KEPT_CHARS = 2000  # of the instruction: more than the shipped scorer reads of it

_OWN_KEY = secrets.token_bytes(32)


def tag_of(
    attempts: Attempts,
    ask: RoutingAsk,
    name_of: Callable[[str], str] = str,
    *,
    scope: str = TAG,
    top_scores: int | None = TOP_SCORES,
) -> dict[str, Any]:
    """The decision and what became of it, as plain data for an answer's metadata.

    Args:
        attempts: who was tried.
        ask: what was asked of the router.
        name_of: the caller's name for a candidate of the zoo.
        scope: which router's; others do not believe its seal.
        top_scores: how many scores, best first; None for all.
    """
    decision, answered = attempts.decision, str(attempts.current)
    candidate = name_of(answered)
    best = sorted(decision.scores.items(), key=lambda item: -item[1])[:top_scores]
    tag = {
        "candidate": candidate,
        "score": decision.scores.get(answered),
        "scores": {name_of(name): score for name, score in best},
        "reason": decision.reason,
        "cost_usd": decision.costs_usd.get(answered),
        "elapsed_s": round(attempts.elapsed_s, 3),
        "path": [{**step, "candidate": name_of(step["candidate"])} for step in attempts.path],
        "instruction": (ask.reading.instruction or "")[:KEPT_CHARS],
        "turn": ask.reading.turn,
        "policy": policy_id(ask),
        "seal": seal(candidate, ask.reading.turn, scope),
    }
    if decision.id is not None:
        tag["id"] = decision.id
    if attempts.resting:
        tag["resting_s"] = {name_of(name): rest for name, rest in attempts.resting.items()}
    if decision.truncated_tokens:
        tag["truncated_tokens"] = decision.truncated_tokens
    return tag


def policy_id(ask: RoutingAsk) -> str:
    """A short name for the policy that decided: the same settings have the same one."""
    policy = ask.policy or ask.router.policy
    return hashlib.sha256(policy.model_dump_json().encode()).hexdigest()[:12]


def turn_id(text: str) -> str:
    """A short digest of the user's last instruction: answers to it belong to one turn."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()[:16]


def seal(candidate: str, turn: str, scope: str = TAG) -> str:
    """What nobody without the key can write beside a candidate's name."""
    key = os.environ.get(KEY_VARIABLE, "").encode() or _OWN_KEY
    return hmac.new(key, f"{scope}\n{candidate}\n{turn}".encode("utf-8", "replace"), hashlib.sha256).hexdigest()[:24]


def believed(tag: object, scope: str = TAG) -> bool:
    """Whether a tag was written by a router of this scope that holds the key."""
    if not isinstance(tag, Mapping):
        return False
    parts = [tag.get(name) for name in ("candidate", "turn", "seal")]
    if not all(isinstance(part, str) for part in parts):
        return False
    return hmac.compare_digest(
        seal(str(parts[0]), str(parts[1]), scope).encode(), str(parts[2]).encode("utf-8", "replace")
    )


def learn_from(router: Router, tag: object, outcome: float, *, source: FeedbackSource = "user") -> None:
    """Record how right the answer was that carries this tag; see :meth:`Router.record`.

    Raises:
        ConfigurationError: it is no tag, or there was no text to score.
    """
    if not isinstance(tag, Mapping) or not tag.get("candidate"):
        raise ConfigurationError("Expected an answer of a router, with its decision in the metadata; this has none.")
    if not tag.get("instruction"):
        raise ConfigurationError("There was no text to score for this answer, so nothing can be learned from it.")
    decision = str(tag["id"]) if tag.get("id") else None
    router.record(str(tag["instruction"]), str(tag["candidate"]), outcome, source=source, decision=decision)
