"""What routing is timed beside: the bare encoder on torch, sentence-transformers, semantic-router; those installed."""

from __future__ import annotations

import asyncio
import importlib.util
from collections.abc import Callable, Sequence
from typing import Any

from msat_core.encoders.base import Encoder
from msat_core.encoders.folder import EncoderFiles

Peer = Callable[[Sequence[str]], object]
UTTERANCES = 5  # of each route of semantic-router
N_ROUTES = 29  # of semantic-router; chosen


def installed(library: str) -> bool:
    """Can it be imported?"""
    return importlib.util.find_spec(library) is not None


def torch_forward(files: EncoderFiles, device: str) -> Peer:
    """A forward of the encoder alone, fp32, of texts that are already token ids (made on the first call)."""
    import torch

    from msat_core.encoders.torch_encoder import TorchEncoder

    encoder = TorchEncoder(files, device=device)
    rows_of: dict[tuple[str, ...], list[list[int]]] = {}

    def forward(texts: Sequence[str]) -> object:
        key = tuple(texts)
        if key not in rows_of:
            rows_of[key], _ = encoder.tokenize(texts)
        with torch.inference_mode():
            return encoder.forward(rows_of[key]).cpu()

    return forward


def sentence_transformers(device: str) -> Peer:
    """``SentenceTransformer.encode`` of the published encoder."""
    from sentence_transformers import SentenceTransformer

    from msat_core.encoders.published import published_folder

    model = SentenceTransformer(str(published_folder()), device=device)
    return lambda texts: model.encode(list(texts), show_progress_bar=False)


def semantic_router(encoder: Encoder) -> dict[str, Peer]:
    """semantic-router's two routers over ``N_ROUTES`` routes, both with our encoder (so no model is downloaded)."""
    from semantic_router import DecisionRouter, IndexedRouter, Route
    from semantic_router.decision_models import DecisionModel
    from semantic_router.encoders import DenseEncoder

    class Ours(DenseEncoder):  # type: ignore[misc]  # the library may be missing
        def __call__(self, docs: list[Any]) -> list[list[float]]:
            vectors: list[list[float]] = encoder.encode(docs).vectors.tolist()
            return vectors

        async def acall(self, docs: list[Any]) -> list[list[float]]:
            return await asyncio.to_thread(self, docs)

    class Nearest(DecisionModel):  # type: ignore[misc]  # the library may be missing
        """Answers by cosine between the query and the routes' descriptions, embedded once."""

        probabilistic = False

        def __init__(self, descriptions: dict[str, str]) -> None:
            self._names = list(descriptions)
            self._vectors = encoder.encode(list(descriptions.values())).vectors

        async def aask_many(self, states: Sequence[Any], questions: dict[str, Any]) -> list[dict[str, Any]]:
            near = (await asyncio.to_thread(encoder.encode, list(states))).vectors @ self._vectors.T
            answers = [dict(zip(self._names, row, strict=True)) for row in near.tolist()]
            return [{name: {"probabilities": answer} for name in questions} for answer in answers]

        async def aask(self, state: object, questions: dict[str, Any]) -> dict[str, Any]:
            return (await self.aask_many([state], questions))[0]

    routes = [
        Route(
            name=f"route {i}",
            description=f"Questions about subject {i}.",
            utterances=[f"Question {j} about subject {i}?" for j in range(UTTERANCES)],
        )
        for i in range(N_ROUTES)
    ]
    indexed = IndexedRouter(encoder=Ours(name="ours"), routes=routes)
    decision = DecisionRouter(model=Nearest({route.name: route.description for route in routes}), routes=routes)
    return {
        "semantic-router IndexedRouter": lambda texts: [indexed(text) for text in texts],
        "semantic-router DecisionRouter": lambda texts: [decision(text) for text in texts],
    }
