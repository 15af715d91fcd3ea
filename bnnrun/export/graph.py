"""An ONNX graph, node by node."""

from collections.abc import Sequence
from typing import Any

import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

import bnnrun

OPSET = 18
IR_VERSION = 8  # that of opset 18: a newer one shuts out older runtimes


class Graph:
    """Nodes and constants of a graph, in the order in which they were added."""

    def __init__(self) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants: dict[str, onnx.TensorProto] = {}

    def constant(self, name: str, value: NDArray[Any]) -> str:
        """Add a constant, unless there is one of that name; returns the name."""
        self.constants.setdefault(name, numpy_helper.from_array(value, name))
        return name

    def add(
        self, operator: str, *inputs: str, output: str = "", domain: str = "", **attributes: Any
    ) -> str:
        """Add a node; returns the name of its output, by default after its operator."""
        output = output or f"{operator}_{len(self.nodes)}"
        node = helper.make_node(operator, inputs, [output], domain=domain, **attributes)
        self.nodes.append(node)
        return output

    @property
    def size(self) -> int:
        """Bytes of the nodes and constants."""
        parts: list[Any] = [*self.nodes, *self.constants.values()]
        return sum(part.ByteSize() for part in parts)

    def file(
        self,
        name: str,
        *,
        inputs: Sequence[onnx.ValueInfoProto],
        outputs: Sequence[onnx.ValueInfoProto],
        metadata: dict[str, str],
        domain: str = "",
        types: dict[str, str] | None = None,
    ) -> bytes:
        """The content of the graph's file; the same bytes each time.

        Args:
            domain: of operators that are not standard
            types:  QONNX's data types of tensors, by their names
        """
        operators = [helper.make_opsetid("", OPSET)]
        operators += [helper.make_opsetid(domain, 1)] if domain else []
        graph = helper.make_graph(self.nodes, name, inputs, outputs, [*self.constants.values()])
        for tensor, kind in (types or {}).items():
            entry = onnx.StringStringEntryProto(key="finn_datatype", value=kind)
            graph.quantization_annotation.add(
                tensor_name=tensor, quant_parameter_tensor_names=[entry]
            )
        model = helper.make_model(
            graph,
            opset_imports=operators,
            ir_version=IR_VERSION,
            producer_name="bnnrun",
            producer_version=bnnrun.__version__,
        )
        helper.set_model_props(model, metadata)
        content: bytes = model.SerializeToString(deterministic=True)
        return content
