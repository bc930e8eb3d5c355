"""What the zoo costs: one pass for all candidates beside the naive loop and the naive batch, and beside the floor.

    python examples/reproduce/model_sat_speed.py              # a GPU: Phi-3-Mini and E5-Large shapes, bf16
    python examples/reproduce/model_sat_speed.py --tiny       # a CPU: the same code on tiny shapes, fp32

Weights are random: time does not depend on them. The capability tokens are encoded beforehand, as in service, where a
profile is read once; what that costs is printed apart. The floor is the time that the matrix rate, measured in the
same run, would need for the tokens that one pass computes: 2 × (parameters of φ's layers) × tokens, and attention's
products.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM

from msat_core.scoring.model_sat.backbones import decoder_of
from msat_core.scoring.model_sat.config import Backbone, Layout, ModelSATConfig
from msat_core.scoring.model_sat.inquiry import Inquiry
from msat_core.scoring.model_sat.layouts import Tokens
from msat_core.scoring.model_sat.module import ModelSAT
from msat_core.scoring.model_sat.prompts import PromptBatch
from msat_core.scoring.model_sat.representations import Representations

PHI_3_MINI = {
    "model_type": "phi3",
    "vocab_size": 32064,
    "hidden_size": 3072,
    "intermediate_size": 8192,
    "num_hidden_layers": 32,
    "num_attention_heads": 32,
    "num_key_value_heads": 32,
    "max_position_embeddings": 4096,
    "sliding_window": 2047,
    "pad_token_id": 32000,
}
E5_LARGE = {
    "model_type": "bert",
    "vocab_size": 30522,
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "max_position_embeddings": 512,
}
TINY = {"hidden_size": 128, "intermediate_size": 344, "num_hidden_layers": 3, "num_attention_heads": 4}
TINY_LLM = {**PHI_3_MINI, **TINY, "num_key_value_heads": 4, "vocab_size": 512, "pad_token_id": 0, "eos_token_id": 1}
TINY_ENCODER = {**E5_LARGE, **TINY, "vocab_size": 512, "num_hidden_layers": 2}
N_TASKS, CLAUSE_TOKENS = 50, 28
AIM_RATIO, AIM_SPEEDUP, AIM_FLOOR = 1.35, 15.0, 0.60


@dataclass(frozen=True)
class Setup:
    """Where and on what to measure."""

    device: torch.device
    dtype: torch.dtype
    llm: dict[str, Any]
    encoder: dict[str, Any]
    prompts: tuple[int, ...]
    zoos: tuple[int, ...]
    full_batch_tokens: int
    repeats: int


def setup_of(tiny: bool) -> Setup:
    """The full shapes on a GPU, tiny ones on a CPU."""
    if tiny:
        return Setup(torch.device("cpu"), torch.float32, TINY_LLM, TINY_ENCODER, (64, 256), (1, 5, 30), 1024, 3)
    if not torch.cuda.is_available():
        raise SystemExit("No GPU: give --tiny to check the shape of the curve on a CPU.")
    return Setup(torch.device("cuda"), torch.bfloat16, PHI_3_MINI, E5_LARGE, (128, 1024), (1, 5, 30, 100), 65_536, 20)


def build(setup: Setup, layout: Layout, k: int) -> ModelSAT:
    """A network with random weights; built on the device, because 3.8 billion parameters take long elsewhere."""
    config = ModelSATConfig(
        encoder=Backbone(config=setup.encoder), llm=Backbone(config=setup.llm), layout=layout, n_capability_tokens=k
    )
    torch.manual_seed(0)
    with torch.device(setup.device):
        llm = AutoModelForCausalLM.from_config(
            AutoConfig.for_model(**setup.llm), dtype=setup.dtype, attn_implementation="sdpa"
        )
        encoder = AutoModel.from_config(
            AutoConfig.for_model(**setup.encoder), dtype=setup.dtype, attn_implementation="sdpa"
        )
        network = ModelSAT(config, llm, encoder, inquiry=Inquiry((), (), 5, 6), n_start=1)
    return network.eval().requires_grad_(False)


def seconds(call: Callable[[], object], device: torch.device, repeats: int) -> float:
    """Median time of a call after warm-up calls: CUDA events on a GPU, the processor's clock elsewhere."""
    for _ in range(3 if device.type == "cuda" else 1):
        call()
    times: list[float] = []
    for _ in range(repeats):
        if device.type == "cuda":
            start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            start.record()
            call()
            end.record()
            end.synchronize()
            times.append(start.elapsed_time(end) / 1000)
        else:
            began = time.process_time()  # of this process: a busy machine does not count
            call()
            times.append(time.process_time() - began)
    return statistics.median(times)


def matrix_rate(setup: Setup) -> float:
    """Floating-point operations a second of φ's own products, over as many tokens as a full batch has."""
    width, inner = int(setup.llm["hidden_size"]), int(setup.llm["intermediate_size"])
    tokens = min(setup.full_batch_tokens, 16_384)
    a = torch.randn(tokens, width, device=setup.device, dtype=setup.dtype)
    b = torch.randn(width, 2 * inner, device=setup.device, dtype=setup.dtype)
    return 2 * tokens * width * 2 * inner / seconds(lambda: a @ b, setup.device, setup.repeats)


def operations(network: ModelSAT, setup: Setup, n_text: int, n_blocks: int, k: int) -> float:
    """Floating-point operations of one instruction: layers' weights, and attention over what may be seen."""
    weights = sum(p.numel() for layer in decoder_of(network.llm).layers for p in layer.parameters())  # type: ignore[union-attr]
    pairs = n_text * (n_text + 1) / 2 + n_blocks * k * (n_text + (k + 1) / 2)
    width, layers = int(setup.llm["hidden_size"]), int(setup.llm["num_hidden_layers"])
    return float(2 * weights * (n_text + n_blocks * k) + 4 * width * layers * pairs)


def prompts_of(setup: Setup, n: int, length: int) -> PromptBatch:
    """N random prompts of one length."""
    ids = torch.randint(10, int(setup.llm["vocab_size"]) - 10, (n, length), device=setup.device)
    return PromptBatch(ids, torch.ones_like(ids, dtype=torch.bool))


def capability(network: ModelSAT, setup: Setup, m: int) -> tuple[Tokens, float]:
    """The capability tokens of M candidates, and the seconds that one candidate's take."""
    ids = torch.randint(10, 500, (N_TASKS, CLAUSE_TOKENS), device=setup.device)
    one = Representations(
        texts=("",) * N_TASKS,
        token_ids=ids,
        token_mask=torch.ones_like(ids, dtype=torch.bool),
        text_of=torch.arange(N_TASKS, device=setup.device)[None],
        mask=torch.ones(1, N_TASKS, dtype=torch.bool, device=setup.device),
        evidence=torch.zeros(1, N_TASKS, 3, device=setup.device),
        truncated_tokens=torch.zeros(1, dtype=torch.long),
    )
    tokens = network.capability_tokens(one)
    taken = seconds(lambda: network.capability_tokens(one), setup.device, 3)
    return Tokens(tokens.embeddings.expand(m, -1, -1).contiguous(), tokens.mask.expand(m, -1).contiguous()), taken


def naive_loop(network: ModelSAT, prompts: PromptBatch, tokens: Tokens) -> Tensor:
    """The paper's way: one pass for each pair."""
    columns = torch.arange(len(tokens.mask), device=prompts.ids.device)
    return torch.cat([network.logits(prompts, tokens, column.reshape(1, 1)) for column in columns], dim=1)


def measure(setup: Setup, length: int, k: int, rate: float) -> list[dict[str, float]]:
    """One row for each size of zoo."""
    ours, paper, rows = build(setup, "instruction-first", k), build(setup, "capability-first", k), []
    compiled = build(setup, "instruction-first", k) if setup.device.type == "cuda" else None
    if compiled is not None:
        decoder_of(compiled.llm).compile(dynamic=True)  # as ModelSATScorer.compile does
    for m in setup.zoos:
        found = measure_zoo(setup, ours, paper, compiled, length, m, rate)
        rows.append({name: round(value, 3) for name, value in {"prompt": length, "k": k, "M": m, **found}.items()})
        print(json.dumps(rows[-1]), flush=True)
    return rows


def measure_zoo(
    setup: Setup,
    ours: ModelSAT,
    paper: ModelSAT,
    compiled: ModelSAT | None,
    length: int,
    m: int,
    rate: float,
) -> dict[str, float]:
    """Times of one instruction for M candidates, and of a full batch."""
    tokens, encode_s = capability(ours, setup, m)
    k, few = tokens.mask.shape[1], max(3, setup.repeats // 4)
    one, columns = prompts_of(setup, 1, length), torch.arange(m, device=setup.device)[None]

    def timed(call: Callable[[], object], repeats: int) -> float:
        return 1000 * seconds(call, setup.device, repeats)

    found = {
        "encode_profile_ms": 1000 * encode_s,
        "loop_ms": timed(lambda: naive_loop(paper, one, tokens), few),
        "batch_ms": timed(lambda: paper.logits(one, tokens, columns), setup.repeats),
        "ours_ms": timed(lambda: ours.logits(one, tokens, columns), setup.repeats),
    }
    if compiled is not None:
        found["ours_compiled_ms"] = timed(lambda: compiled.logits(one, tokens, columns), setup.repeats)
    floor_ms = 1000 * operations(ours, setup, length, m, k) / rate
    n = max(1, setup.full_batch_tokens // (length + m * k))
    many, all_columns = prompts_of(setup, n, length), columns.expand(n, m)
    full_ms = timed(lambda: ours.logits(many, tokens, all_columns), few)
    found.update(floor_ms=floor_ms, full_batch=n, instructions_per_s=1000 * n / full_ms)
    found["share_of_floor"] = floor_ms * n / full_ms
    return found


def conclude(rows: list[dict[str, float]], tiny: bool) -> dict[str, object]:
    """What the aims come to, at the longest prompt and k = 8."""
    longest = max(row["prompt"] for row in rows)
    by_zoo = {row["M"]: row for row in rows if row["prompt"] == longest and row["k"] == 8}
    name = min(("ours_ms", "ours_compiled_ms"), key=lambda key: by_zoo[30].get(key, float("inf")))
    ratio = by_zoo[30][name] / by_zoo[1][name]
    speedup = by_zoo[30]["loop_ms"] / by_zoo[30][name]
    result: dict[str, object] = {
        "prompt": longest,
        "M30_over_M1": round(ratio, 3),
        "loop_over_ours_at_M30": round(speedup, 2),
        "naive_loop_M30_over_M1": round(by_zoo[30]["loop_ms"] / by_zoo[1]["loop_ms"], 2),
        "share_of_floor_at_M30": by_zoo[30]["share_of_floor"],
    }
    if tiny:  # small matrices say nothing of rates, but the curve must have its shape
        result["curve_has_its_shape"] = bool(ratio < 4 and speedup > 5)
    else:
        floor = by_zoo[30]["share_of_floor"]
        result["aims_met"] = {
            "ratio": ratio <= AIM_RATIO,
            "speedup": speedup >= AIM_SPEEDUP,
            "floor": floor >= AIM_FLOOR,
        }
    return result


@torch.inference_mode()
def main() -> None:
    """Measure every prompt length, k and zoo, and print one row each."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tiny", action="store_true")
    parser.add_argument("--k", type=int, nargs="+", default=[8])
    arguments = parser.parse_args()
    if arguments.tiny:
        torch.set_num_threads(1)
    setup = setup_of(arguments.tiny)
    rate = matrix_rate(setup)
    where = torch.cuda.get_device_name() if setup.device.type == "cuda" else "CPU, one thread"
    print(json.dumps({"device": where, "dtype": str(setup.dtype), "matrix_tflops": round(rate / 1e12, 3)}), flush=True)
    rows = [row for length in setup.prompts for k in arguments.k for row in measure(setup, length, k, rate)]
    print(json.dumps(conclude(rows, arguments.tiny)))


if __name__ == "__main__":
    main()
