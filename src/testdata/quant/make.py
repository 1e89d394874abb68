#!/usr/bin/env python3
"""Makes the fixtures of src/quant/tests.rs with the `gguf` package: pip install gguf numpy; python make.py

FORMAT.blocks   blocks: random ones, then extreme ones
FORMAT.values   what gguf.quants.dequantize makes of them, f32
rows.values     rows of floats, f32
rows.FORMAT     what gguf.quants.quantize makes of them, for the formats that it can
"""

from pathlib import Path

import numpy as np
from gguf import GGML_QUANT_SIZES, GGMLQuantizationType as Type
from gguf.quants import dequantize, quantize

HERE = Path(__file__).parent
# Where a block's half-precision scales lie, in bytes.
SCALES = {
    "F32": [], "F16": [], "BF16": [], "Q4_0": [0], "Q4_1": [0, 2], "Q5_0": [0], "Q5_1": [0, 2], "Q8_0": [0],
    "Q4_K": [0, 2], "Q5_K": [0, 2], "Q6_K": [208],
}
# Zero, minus zero, the smallest and largest subnormal, one, the largest, minus the largest, infinity, a NaN.
EXTREMES = [0x0000, 0x8000, 0x0001, 0x03FF, 0x3C00, 0x7BFF, 0xFBFF, 0x7C00, 0x7E00]

rng = np.random.default_rng(20240607)


def blocks_of(name):
    length, size = GGML_QUANT_SIZES[Type[name]]
    if length == 1:
        return rng.integers(0, 256, (600, size), dtype=np.uint8)
    random = rng.integers(0, 256, (6, size), dtype=np.uint8)
    for at in SCALES[name]:
        random[:, at : at + 2] = (rng.standard_normal((6, 1)) * 0.05).astype(np.float16).view(np.uint8)
    extreme = []
    for bits in EXTREMES:
        for fill in (0x00, 0xFF) if bits == 0x7BFF else (int(rng.integers(0, 256)),):
            block = np.full(size, fill, dtype=np.uint8)
            for at in SCALES[name]:
                block[at : at + 2] = np.array([bits], dtype="<u2").view(np.uint8)
            extreme.append(block)
    return np.concatenate([random, np.stack(extreme)])


for name in SCALES:
    blocks = blocks_of(name)
    with np.errstate(all="ignore"):
        values = dequantize(blocks, Type[name]).astype("<f4")
    (HERE / f"{name.lower()}.blocks").write_bytes(blocks.tobytes())
    (HERE / f"{name.lower()}.values").write_bytes(values.tobytes())

rows = np.stack(
    [
        rng.standard_normal(256),
        rng.standard_normal(256) * 1e-3,
        rng.laplace(size=256) * 10,
        rng.uniform(-1, 1, 256),
        rng.uniform(5, 6, 256),
        -rng.uniform(0, 3, 256),
        np.where(rng.uniform(size=256) < 0.02, 40.0, 1.0) * rng.standard_normal(256),
        np.round(rng.standard_normal(256) * 4) / 2,
        np.zeros(256),
        np.full(256, -1.25),
        np.tile([1.0, -1.0], 128),
        rng.standard_normal(256) * 8000,
    ]
).astype(np.float32)
(HERE / "rows.values").write_bytes(rows.astype("<f4").tobytes())
for name in ["F16", "BF16", "Q4_0", "Q4_1", "Q5_0", "Q5_1", "Q8_0"]:
    (HERE / f"rows.{name.lower()}").write_bytes(quantize(rows, Type[name]).tobytes())
