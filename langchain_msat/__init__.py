"""msat in LangChain: a chat model that routes, and its companions."""
