"""The graph of a BERT-like encoder for ONNX Runtime, without its weights.

What the runtime computes in one pass: from summed embeddings and a mask to the last layer's hidden states, in ONNX
Runtime's fused operators. The weights are declared as external and handed in when the encoder is loaded
(:mod:`msat_core.encoders.onnx_encoder`), so the graph takes a few kB.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from onnx import GraphProto, ModelProto, NodeProto, TensorProto, helper

from msat_core.encoders.folder import EncoderConfig

FUSED = "com.microsoft"  # ONNX Runtime's own operators
IR_VERSION, OPSET = 9, 17  # of the ONNX standard


def encoder_graph(config: EncoderConfig) -> bytes:
    """The graph, serialised.

    Inputs are ``embedded`` (N, T, D) float32 and ``mask`` (N, T) int32; the output is ``hidden`` (N, T, D) float32.
    """
    steps = [helper.make_node("LayerNormalization", ["embedded", "norm.gain", "norm.bias"], ["x0"], epsilon=config.eps)]
    for layer in range(config.n_layers):
        steps += _layer(layer, config, last=layer == config.n_layers - 1)
    graph = helper.make_graph(
        steps,
        "encoder",
        inputs=[
            helper.make_tensor_value_info("embedded", TensorProto.FLOAT, ["N", "T", config.dim]),
            helper.make_tensor_value_info("mask", TensorProto.INT32, ["N", "T"]),
        ],
        outputs=[helper.make_tensor_value_info("hidden", TensorProto.FLOAT, ["N", "T", config.dim])],
    )
    _declare_weights(graph, _sizes(config))
    opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(FUSED, 1)]
    model: ModelProto = helper.make_model(graph, opset_imports=opsets, ir_version=IR_VERSION, producer_name="msat")
    return bytes(model.SerializeToString(deterministic=True))


def _layer(layer: int, config: EncoderConfig, *, last: bool) -> list[NodeProto]:
    """Self-attention, then the feed-forward network, each added to what it read and normalised."""

    def weights(*names: str) -> list[str]:
        return [f"{layer}.{name}" for name in names]

    def fused(operator: str, source: Sequence[str], output: str, **attributes: Any) -> NodeProto:  # noqa: ANN401 - ONNX's
        return helper.make_node(operator, list(source), [output], domain=FUSED, **attributes)

    source, output = f"x{layer}", "hidden" if last else f"x{layer + 1}"
    attended, normed, wide, active, narrow, mixed = (
        f"{layer}.{part}" for part in ("attended", "normed", "wide", "active", "narrow", "mixed")
    )
    attention = [source, *weights("qkv.weight", "qkv.bias"), "mask"]
    first = [mixed, source, *weights("attention_norm.gain", "attention_norm.bias", "attention_out.bias")]
    second = [narrow, normed, *weights("output_norm.gain", "output_norm.bias", "output.bias")]
    return [
        fused("Attention", attention, attended, num_heads=config.n_heads),
        helper.make_node("MatMul", [attended, *weights("attention_out.weight")], [mixed]),
        fused("SkipLayerNormalization", first, normed, epsilon=config.eps),
        helper.make_node("MatMul", [normed, *weights("intermediate.weight")], [wide]),
        fused("BiasGelu", [wide, *weights("intermediate.bias")], active),
        helper.make_node("MatMul", [active, *weights("output.weight")], [narrow]),
        fused("SkipLayerNormalization", second, output, epsilon=config.eps),
    ]


def _sizes(config: EncoderConfig) -> dict[str, tuple[int, ...]]:
    """Of every weight, by its name in the graph."""
    wide, dim = config.intermediate, config.dim
    all_sizes: dict[str, tuple[int, ...]] = {"norm.gain": (dim,), "norm.bias": (dim,)}
    for layer in range(config.n_layers):
        sizes: dict[str, tuple[int, ...]] = {
            "qkv.weight": (dim, 3 * dim),
            "qkv.bias": (3 * dim,),
            "attention_out.weight": (dim, dim),
            "attention_out.bias": (dim,),
            "intermediate.weight": (dim, wide),
            "intermediate.bias": (wide,),
            "output.weight": (wide, dim),
            "output.bias": (dim,),
            **{f"{norm}.{part}": (dim,) for norm in ("attention_norm", "output_norm") for part in ("gain", "bias")},
        }
        all_sizes |= {f"{layer}.{name}": size for name, size in sizes.items()}
    return all_sizes


def _declare_weights(graph: GraphProto, sizes: dict[str, tuple[int, ...]]) -> None:
    for name, dims in sizes.items():
        tensor = graph.initializer.add()
        tensor.name, tensor.data_type, tensor.data_location = name, TensorProto.FLOAT, TensorProto.EXTERNAL
        tensor.dims.extend(dims)
        place = tensor.external_data.add()
        place.key, place.value = "location", "handed in"
