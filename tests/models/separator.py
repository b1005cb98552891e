"""A tiny HTDemucs with random weights, in the very file format that the engine loads."""

from __future__ import annotations

import json
from fractions import Fraction
from pathlib import Path
from typing import Any

import torch
from demucs.htdemucs import HTDemucs
from safetensors.torch import save_file

from dubbing.engines.demucs import FILE

ARGUMENTS: dict[str, Any] = {
    "sources": ["drums", "bass", "other", "vocals"],
    "channels": 4,
    "t_layers": 1,
    "t_heads": 2,
    "bottom_channels": 8,
    "dconv_comp": 4,
    "samplerate": 44_100,
}
"""The depth of the real one; the rest as small as the code allows."""
LENGTH_S = Fraction(39, 5)
"""What the real one looks at, s."""


def make(folder: Path, segment: Fraction = LENGTH_S, klass: str = "demucs.htdemucs.HTDemucs") -> Path:
    """Write the checkpoint of a network that looks at `segment` seconds into `folder`, and answer the folder. 0.3 MB."""
    arguments = ARGUMENTS | {"segment": segment}
    folder.mkdir(parents=True, exist_ok=True)
    state = torch.random.get_rng_state()
    torch.manual_seed(1)
    network = HTDemucs(**arguments)
    torch.random.set_rng_state(state)
    told = {"klass": klass, "args": "[]", "kwargs": json.dumps(arguments, default=_fraction)}
    save_file({name: tensor.contiguous() for name, tensor in network.state_dict().items()}, folder / FILE, told)
    return folder


def _fraction(value: Fraction) -> dict[str, Any]:
    return {"_type": "fraction", "numerator": value.numerator, "denominator": value.denominator}
