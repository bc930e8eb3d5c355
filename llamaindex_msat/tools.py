"""One query engine per candidate, for a selector to choose from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from llama_index.core.indices.base import BaseIndex
from llama_index.core.llms import LLM
from llama_index.core.tools import QueryEngineTool


def candidate_query_engines(index: BaseIndex[Any], llms: Mapping[str, LLM], **options: Any) -> list[QueryEngineTool]:
    """A query engine tool per candidate over one index, each named after its candidate.

    Args:
        index: what is searched.
        llms: the LLM of each candidate, by a name or alias in the zoo.
        **options: of ``index.as_query_engine``.
    """
    return [
        QueryEngineTool.from_defaults(
            index.as_query_engine(llm=llm, **options), name=name, description=f"Answers with {name}."
        )
        for name, llm in llms.items()
    ]
