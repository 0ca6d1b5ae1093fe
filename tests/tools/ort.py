"""Runs a model folder in ONNX Runtime, as it is."""

import json
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnxruntime


class OrtModel:
    """A session of ONNX Runtime on the CPU and the shape of its KV cache.

    With one thread: several wait for each other after every operator, which on
    a machine that has other work to do takes many times as long.
    """

    def __init__(self, folder: Path):
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(
            str(Path(folder) / "model.onnx"), options, providers=["CPUExecutionProvider"]
        )
        architecture = json.loads((Path(folder) / "chaski.json").read_text())["architecture"]
        self.layers = architecture["layers"]
        self.cache_shape = (1, architecture["kv_heads"], 0, architecture["head_dim"])

    def decoder(self) -> "OrtDecoder":
        """A new, empty KV cache."""
        return OrtDecoder(self)


class OrtDecoder:
    """One KV cache: tokens in, logits out."""

    def __init__(self, model: OrtModel):
        self.model = model
        self.past = 0
        self.binding = model.session.io_binding()
        empty = onnxruntime.OrtValue.ortvalue_from_numpy(np.zeros(model.cache_shape, np.float32))
        self.cache = [empty] * (2 * model.layers)

    def feed(self, ids: Sequence[int]) -> np.ndarray:
        """Appends tokens to the cache; gives the logits of the last one."""
        return self.feed_all(ids)[-1].copy()

    def feed_all(self, ids: Sequence[int]) -> np.ndarray:
        """Appends tokens to the cache; gives the logits of each, `[len(ids), vocab]`.

        The cache itself never leaves ONNX Runtime.
        """
        total = self.past + len(ids)
        binding = self.binding
        binding.clear_binding_inputs()
        binding.clear_binding_outputs()
        binding.bind_cpu_input("input_ids", np.array([ids], np.int64))
        binding.bind_cpu_input("attention_mask", np.ones((1, total), np.int64))
        binding.bind_output("logits")
        for layer in range(self.model.layers):
            for which, kind in enumerate(("key", "value")):
                past = self.cache[2 * layer + which]
                binding.bind_ortvalue_input(f"past_key_values.{layer}.{kind}", past)
                binding.bind_output(f"present.{layer}.{kind}")
        self.model.session.run_with_iobinding(binding)
        logits, *self.cache = binding.get_outputs()
        self.past = total
        return logits.numpy()[0]


def logits(folder: Path, ids: Sequence[int]) -> np.ndarray:
    """ONNX Runtime's logits of the last position, the ids given all at once."""
    return OrtModel(folder).decoder().feed(ids)
