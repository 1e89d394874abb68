#!/usr/bin/env python3
"""Makes package.gguf, a file as the `gguf` package writes it: pip install gguf numpy; python make.py"""

from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType as Type, GGUFWriter
from gguf.quants import quantize

writer = GGUFWriter(Path(__file__).parent / "package.gguf", "llama")
writer.add_name("a small file")
writer.add_block_count(1)
writer.add_layer_norm_rms_eps(1e-5)
writer.add_uint64("large", 2**63)
writer.add_int8("negative", -5)
writer.add_bool("yes", True)
writer.add_float64("wide", 0.1)
writer.add_token_list(["<unk>", "<s>", "</s>", "▁the", "é"])
writer.add_token_scores([0.0, -1.0, -2.0, -3.5, 0.25])
writer.add_token_types([2, 3, 3, 1, 1])
writer.add_array("windows", [True, False])
writer.add_array("nested", [[1, 2], [3]])
weights = (np.arange(2 * 64, dtype=np.float32).reshape(2, 64) - 64) / 8
writer.add_tensor("f32", weights)
writer.add_tensor("f16", weights.astype(np.float16))
writer.add_tensor("q8_0", quantize(weights, Type.Q8_0), raw_dtype=Type.Q8_0)
writer.write_header_to_file()
writer.write_kv_data_to_file()
writer.write_tensors_to_file()
writer.close()
