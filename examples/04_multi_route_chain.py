"""`MSATRouterChain` as the router of langchain-classic's `MultiRouteChain`.

python examples/04_multi_route_chain.py
"""

from __future__ import annotations

from langchain_classic.chains.router.base import MultiRouteChain
from langchain_classic.chains.transform import TransformChain

from langchain_msat import MSATRouterChain
from msat_core import Router, RoutingPolicy


def chain(name: str) -> TransformChain:
    """Stands in for a destination chain."""
    return TransformChain(
        input_variables=["input"],
        output_variables=["text"],
        transform=lambda inputs: {"text": f"({name} answers: {inputs['input']})"},
    )


def main() -> None:
    """Route to the chain of the chosen candidate; to the default where nobody is likely to be right."""
    destinations = {"gpt-6.1-sol": "large", "qwen3-8b": "small"}
    policy = RoutingPolicy(objective="target", target=0.8)  # the cheapest that reaches 80%, else the best
    router = Router.from_pretrained(policy=policy)
    chain_router = MSATRouterChain(router=router, destinations=destinations, min_score=0.5)
    app = MultiRouteChain(
        router_chain=chain_router,
        destination_chains={"large": chain("large"), "small": chain("small")},
        default_chain=chain("default"),
    )
    for question in ("What is 7 times 8?", "List the prime factors of 2^67 - 1 without a computer."):
        print(app.invoke({"input": question})["text"])


if __name__ == "__main__":
    main()
