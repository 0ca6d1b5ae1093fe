"""Reads a model folder's ONNX on its own: nothing of Chaski's is used here.

The weights are found by the graph's edges, not by the names of initialisers,
so a folder passes only if the graph is the one that docs/model-folder.md
describes.
"""

import json
from pathlib import Path

import numpy as np
import onnx

DATA_FILE = "model.onnx.data"
BLOCK = 32


class ModelFolder:
    """The graph and the dequantised weights of one model folder."""

    def __init__(self, folder: Path):
        self.folder = Path(folder)
        self.model = onnx.load(str(self.folder / "model.onnx"), load_external_data=False)
        self.graph = self.model.graph
        self.manifest = json.loads((self.folder / "chaski.json").read_text())
        self.architecture = self.manifest["architecture"]
        self._data = np.memmap(self.folder / DATA_FILE, mode="r", dtype=np.uint8)
        self._initialisers = {tensor.name: tensor for tensor in self.graph.initializer}
        self._producer = {name: node for node in self.graph.node for name in node.output}
        self._consumers: dict[str, list] = {}
        for node in self.graph.node:
            for name in node.input:
                self._consumers.setdefault(name, []).append(node)

    def external_ranges(self) -> dict[str, tuple[int, int]]:
        """Offset and length of each initialiser that lives in the data file."""
        ranges = {}
        for tensor in self._initialisers.values():
            if tensor.data_location != onnx.TensorProto.EXTERNAL:
                continue
            entries = {entry.key: entry.value for entry in tensor.external_data}
            assert entries["location"] == DATA_FILE, (tensor.name, entries)
            ranges[tensor.name] = (int(entries["offset"]), int(entries["length"]))
        return ranges

    def array(self, name: str) -> np.ndarray:
        """The constant behind a value: an initialiser or the `Cast` of one."""
        node = self._producer.get(name)
        if node is not None:
            assert node.op_type == "Cast", f"{name} comes from {node.op_type}, not from a constant"
            to = next(attribute.i for attribute in node.attribute if attribute.name == "to")
            return self.array(node.input[0]).astype(onnx.helper.tensor_dtype_to_np_dtype(to))
        tensor = self._initialisers[name]
        if tensor.data_location != onnx.TensorProto.EXTERNAL:
            return onnx.numpy_helper.to_array(tensor)
        entries = {entry.key: entry.value for entry in tensor.external_data}
        offset, length = int(entries["offset"]), int(entries["length"])
        dtype = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
        raw = self._data[offset : offset + length]
        assert raw.size == length, f"{name} reaches beyond the end of {DATA_FILE}"
        return raw.view(dtype).reshape(tuple(tensor.dims))

    def weights(self) -> dict[str, np.ndarray]:
        """All weights in f32, under their names in a Hugging Face checkpoint."""
        found = {"model.embed_tokens.weight": self._embedding()}
        attentions = [n for n in self.graph.node if n.op_type == "GroupQueryAttention"]
        for layer, attention in enumerate(attentions):
            self._layer(f"model.layers.{layer}.", attention, found)
        head = self._producer["logits"]
        found["lm_head.weight"] = self._matrix(head)
        found["model.norm.weight"] = self._norm_weight(head.input[0])
        return found

    def _layer(self, prefix: str, attention, found: dict[str, np.ndarray]) -> None:
        for letter, name in zip("qkv", attention.input[:3], strict=False):
            matmul = self._linear(f"{prefix}self_attn.{letter}_proj", name, found)
            found[prefix + "input_layernorm.weight"] = self._norm_weight(matmul.input[0])
        (output,) = self._consumers[attention.output[0]]
        last = self._with_bias(output)
        self._linear(f"{prefix}self_attn.o_proj", last, found)
        (residual,) = self._consumers[last]
        assert residual.op_type == "Add"
        norm = self._only(residual.output[0], "SimplifiedLayerNormalization")
        found[prefix + "post_attention_layernorm.weight"] = self.array(norm.input[1])

        for matmul in self._consumers[norm.output[0]]:
            value = self._with_bias(matmul)
            gate = any(node.op_type == "Sigmoid" for node in self._consumers[value])
            self._linear(f"{prefix}mlp.{'gate' if gate else 'up'}_proj", value, found)
            if not gate:
                (product,) = self._consumers[value]
                (down,) = self._consumers[product.output[0]]
                self._linear(f"{prefix}mlp.down_proj", self._with_bias(down), found)

    def _only(self, name: str, op_type: str):
        (node,) = [node for node in self._consumers[name] if node.op_type == op_type]
        return node

    def _is_constant(self, name: str) -> bool:
        node = self._producer.get(name)
        return name in self._initialisers if node is None else node.op_type == "Cast"

    def _with_bias(self, matmul) -> str:
        """The value of a linear layer: of the matmul, or of the Add of its bias."""
        assert matmul.op_type == "MatMulNBits", matmul.op_type
        for node in self._consumers[matmul.output[0]]:
            if node.op_type == "Add" and any(self._is_constant(i) for i in node.input):
                return node.output[0]
        return matmul.output[0]

    def _linear(self, name: str, value: str, found: dict[str, np.ndarray]):
        node = self._producer[value]
        if node.op_type == "Add":
            (bias,) = [i for i in node.input if self._is_constant(i)]
            (value,) = [i for i in node.input if not self._is_constant(i)]
            found[name + ".bias"] = self.array(bias).astype(np.float32).reshape(-1)
            node = self._producer[value]
        found[name + ".weight"] = self._matrix(node)
        return node

    def _norm_weight(self, value: str) -> np.ndarray:
        node = self._producer[value]
        assert node.op_type == "SimplifiedLayerNormalization", node.op_type
        return self.array(node.input[1])

    def _matrix(self, node) -> np.ndarray:
        assert node.op_type == "MatMulNBits", node.op_type
        rows, columns = _attribute(node, "N"), _attribute(node, "K")
        zero_points = self.array(node.input[3]) if len(node.input) > 3 and node.input[3] else None
        quants, scales = self.array(node.input[1]), self.array(node.input[2])
        bits = self._bits(node)
        assert quants.shape == (rows, columns // BLOCK, BLOCK * bits // 8), quants.shape
        return dequantise(quants, scales, zero_points, bits, rows, columns)

    def _bits(self, node) -> int:
        """Bits of a node's weights, which are those the manifest tells."""
        assert _attribute(node, "block_size") == BLOCK
        bits = _attribute(node, "bits")
        table = node.op_type == "GatherBlockQuantized" or "logits" in node.output
        told = self.manifest["quantisation"]
        assert bits == told["embedding_bits" if table else "bits"], (node.name, bits, told)
        return bits

    def _embedding(self) -> np.ndarray:
        (gather,) = [n for n in self.graph.node if n.op_type == "GatherBlockQuantized"]
        assert gather.input[1] == "input_ids"
        bits = self._bits(gather)
        quants, scales = self.array(gather.input[0]), self.array(gather.input[2])
        zero_points = (
            self.array(gather.input[3]) if len(gather.input) > 3 and gather.input[3] else None
        )
        rows, columns = quants.shape[0], quants.shape[1] * 8 // bits
        return dequantise(quants, scales, zero_points, bits, rows, columns)


def dequantise(quants, scales, zero_points, bits: int, rows: int, columns: int) -> np.ndarray:
    """`(q - zero_point) * scale` of each weight, in f32."""
    blocks = columns // BLOCK
    codes = quants.reshape(rows, columns * bits // 8)
    codes = (_nibbles(codes) if bits == 4 else codes).astype(np.float32)
    codes = codes.reshape(rows, blocks, BLOCK)
    if zero_points is None:
        zeros = np.float32(1 << (bits - 1))
    elif zero_points.dtype == np.uint8:
        zeros = _nibbles(zero_points.reshape(rows, -1))[:, :blocks, None].astype(np.float32)
    else:
        zeros = zero_points.reshape(rows, blocks, 1).astype(np.float32)
    scales = scales.reshape(rows, blocks, 1).astype(np.float32)
    return ((codes - zeros) * scales).reshape(rows, columns)


def _nibbles(packed: np.ndarray) -> np.ndarray:
    """Two to a byte along the last axis, the low nibble first."""
    return np.stack([packed & 15, packed >> 4], axis=-1).reshape(*packed.shape[:-1], -1)


def _attribute(node, name: str) -> int:
    return next(attribute.i for attribute in node.attribute if attribute.name == name)
