"""msat in LlamaIndex: a selector and a router LLM."""
