"""Which encoder computes where: ONNX Runtime on a CPU, torch on anything else."""

from __future__ import annotations

from msat_core.encoders.base import Encoder
from msat_core.encoders.folder import CONFIG_FILE, EncoderConfig, EncoderFiles
from msat_core.errors import extras
from msat_core.pretrained import ENCODER


def load_encoder(files: EncoderFiles | None = None, *, device: str | None = None) -> Encoder:
    """An encoder, ready to encode.

    Args:
        files: of the encoder; None for the one that msat ships.
        device: None or ``"cpu"`` for the CPU, by ONNX Runtime; else where torch computes, as torch names it.

    Raises:
        ConfigurationError: torch knows no such device, or it is not there.
    """
    files = EncoderFiles.load(ENCODER) if files is None else files
    if device in (None, "cpu"):
        from msat_core.encoders.onnx_encoder import OnnxEncoder

        return OnnxEncoder(files)
    with extras():
        from msat_core.encoders.torch_encoder import TorchEncoder

    return TorchEncoder(files, device=device)


def shipped_digest() -> str:
    """The digest of the encoder that msat ships, without loading it."""
    return EncoderConfig.load(ENCODER / CONFIG_FILE).digest


def check_device(device: str | None) -> None:
    """Raise ConfigurationError unless an encoder can compute there."""
    if device not in (None, "cpu"):
        with extras():
            from msat_core.encoders.torch_encoder import torch_device

        torch_device(device)
