"""An ONNX graph while it is built: nodes, constants, inputs; only what the outputs need is
written."""

import dataclasses
from typing import Any, NamedTuple

import numpy as np

OPSET, IR_VERSION = 18, 9
"""Versions of the operators and of the file: onnxruntime 1.16 (2023) reads both."""
Operand = str | np.ndarray
"""A value of the graph by its name, or an array that is known already."""


class Node(NamedTuple):
    """One operator with one result."""

    operator: str
    inputs: tuple[str, ...]
    output: str
    attributes: dict[str, Any]


class Input(NamedTuple):
    """What the graph is given."""

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype


@dataclasses.dataclass
class Graph:
    """A graph that grows node by node. Equal constants are kept once."""

    nodes: list[Node] = dataclasses.field(default_factory=list)
    constants: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    inputs: list[Input] = dataclasses.field(default_factory=list)
    _known: dict[tuple[Any, ...], str] = dataclasses.field(default_factory=dict)

    def input(self, name: str, shape: tuple[int, ...], dtype: np.dtype) -> str:
        """A new input; its name."""
        self.inputs.append(Input(name, shape, np.dtype(dtype)))
        return name

    def add(self, operator: str, *operands: Operand, **attributes: Any) -> str:
        """A new node; the name of its result."""
        names = tuple(self.named(operand) for operand in operands)
        output = f"v{len(self.nodes)}"
        self.nodes.append(Node(operator, names, output, attributes))
        return output

    def named(self, operand: Operand) -> str:
        """The name of a value; an array becomes a constant."""
        if isinstance(operand, str):
            return operand
        array = np.asarray(operand, order="C")
        key = (array.shape, array.dtype.str, array.tobytes())
        if key not in self._known:
            self._known[key] = f"c{len(self.constants)}"
            self.constants[self._known[key]] = array
        return self._known[key]

    def reshape(self, operand: Operand, shape: tuple[int, ...]) -> str:
        """The value in another shape."""
        return self.add("Reshape", operand, np.array(shape, np.int64))

    def model(self, output: str, shape: tuple[int, ...], name: str, about: str) -> bytes:
        """The file of a graph with one float32 output.

        Args:
            output: which value.
            shape: its shape.
            name: what it is called outside.
            about: a sentence that is kept in the file.
        """
        from onnx import TensorProto, helper, numpy_helper

        result = self.add("Identity", output)
        nodes = self._needed(result)
        read = {value for node in nodes for value in node.inputs}
        made = [
            helper.make_node(
                node.operator,
                node.inputs,
                [name if node.output == result else node.output],
                **node.attributes,
            )
            for node in nodes
        ]
        graph = helper.make_graph(
            made,
            "policy",
            [
                helper.make_tensor_value_info(
                    each.name, helper.np_dtype_to_tensor_dtype(each.dtype), each.shape
                )
                for each in self.inputs
                if each.name in read
            ],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)],
            [
                numpy_helper.from_array(array, constant)
                for constant, array in self.constants.items()
                if constant in read
            ],
            doc_string=about,
        )
        opset = helper.make_opsetid("", OPSET)
        model = helper.make_model(
            graph, opset_imports=[opset], ir_version=IR_VERSION, producer_name="exporl"
        )
        return model.SerializeToString()

    def _needed(self, result: str) -> list[Node]:
        """The nodes that a result needs, in their order."""
        wanted, found = {result}, []
        for node in reversed(self.nodes):
            if node.output in wanted:
                found.append(node)
                wanted.update(node.inputs)
        return found[::-1]
