"""Model-SAT's own scorer (AAAI 2025): capability encoder, connector and capability LLM, on any backbones."""
