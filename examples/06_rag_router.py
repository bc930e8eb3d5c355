"""RAG over two candidates: one query engine each over one index, chosen per question.

python examples/06_rag_router.py
"""

from __future__ import annotations

from llama_index.core import Document, MockEmbedding, VectorStoreIndex
from llama_index.core.llms import MockLLM
from llama_index.core.query_engine import RouterQueryEngine

from llamaindex_msat import MSATSelector, candidate_query_engines


def main() -> None:
    """Two questions; every score is in the response."""
    texts = [
        "The helicase unwinds the double helix, fuelled by ATP.",
        "Misrepresentation can make a contract voidable.",
    ]
    index = VectorStoreIndex.from_documents([Document(text=t) for t in texts], embed_model=MockEmbedding(embed_dim=8))
    names = ("gemini-3.8-flash", "deepseek-v4-flash")
    tools = candidate_query_engines(index, {name: MockLLM(max_tokens=5) for name in names})
    engine = RouterQueryEngine.from_defaults(tools, llm=MockLLM(), selector=MSATSelector())
    for question in ("Which enzyme unwinds DNA?", "What does this loop print: for i in range(3): print(i*i)"):
        response = engine.query(question)
        result = (response.metadata or {})["selector_result"]
        print(question, "→", result.selections[0].reason)
        print("  ", {name: round(score, 2) for name, score in result.scores.items()})


if __name__ == "__main__":
    main()
