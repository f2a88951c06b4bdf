"""Flux: configuration, module tree, training forward with attention probes, sampling, names."""

from ..flux.config import FluxConfig
from ..flux.forward import Conditioning, FluxOutput, Lora, Probe, flux_forward, velocity
from ..flux.model import Flux

__all__ = [
    "Conditioning",
    "Flux",
    "FluxConfig",
    "FluxOutput",
    "Lora",
    "Probe",
    "flux_forward",
    "velocity",
]
