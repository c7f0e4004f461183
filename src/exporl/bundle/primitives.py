"""What each JAX primitive is in ONNX, for those that acting uses."""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from exporl.bundle.graph import Graph, Operand

Handler = Callable[[Graph, Any, Sequence[Operand]], list[str]]
"""(graph, equation of a jaxpr, its operands) -> names of its results."""
SAME = {
    "abs": "Abs", "add": "Add", "and": "And", "ceil": "Ceil", "copy": "Identity", "cos": "Cos",
    "div": "Div", "eq": "Equal", "erf": "Erf", "exp": "Exp", "floor": "Floor", "ge":
    "GreaterOrEqual", "gt": "Greater", "le": "LessOrEqual", "log": "Log", "logistic": "Sigmoid",
    "lt": "Less", "max": "Max", "min": "Min", "mul": "Mul", "neg": "Neg", "not": "Not", "or": "Or",
    "pow": "Pow", "sign": "Sign", "sin": "Sin", "sqrt": "Sqrt", "stop_gradient": "Identity", "sub":
    "Sub", "tanh": "Tanh",
}  # fmt: skip
"""Primitives that are one operator of the same meaning."""
REDUCTIONS = {"reduce_sum": "ReduceSum", "reduce_max": "ReduceMax", "reduce_min": "ReduceMin"}
TYPES = {"float32": 1, "int32": 6, "int64": 7, "bool": 9}
"""NumPy's name of a type -> ONNX's number of it."""


class NotInOnnx(ValueError):
    """Something that acting does has no counterpart here."""


def convert(graph: Graph, equation: Any, operands: Sequence[Operand]) -> list[str]:
    """Adds one equation of a jaxpr to a graph; the names of its results.

    Raises:
        NotInOnnx: a primitive, a type or a form of it that acting with the library's own networks
            does not use; names it.
    """
    name = equation.primitive.name
    for var in equation.outvars:
        if str(var.aval.dtype) not in TYPES:
            raise NotInOnnx(f"{name} with results of type {var.aval.dtype}")
    if name in SAME:
        return [graph.add(SAME[name], *operands)]
    if name in REDUCTIONS:
        return _reduce(graph, equation, operands)
    if name not in HANDLERS:
        raise NotInOnnx(f"the primitive {name!r}")
    return HANDLERS[name](graph, equation, operands)


def shape_of(var: Any) -> tuple[int, ...]:
    """Shape of a jaxpr's variable."""
    return tuple(int(size) for size in var.aval.shape)


def _reduce(graph: Graph, equation: Any, operands: Sequence[Operand]) -> list[str]:
    operator, axes = REDUCTIONS[equation.primitive.name], equation.params["axes"]
    return [graph.add(operator, operands[0], np.array(axes, np.int64), keepdims=0)]


def _square(graph: Graph, equation: Any, operands: Sequence[Operand]) -> list[str]:
    return [graph.add("Mul", operands[0], operands[0])]


def _rsqrt(graph: Graph, equation: Any, operands: Sequence[Operand]) -> list[str]:
    return [graph.add("Reciprocal", graph.add("Sqrt", operands[0]))]


def _integer_pow(graph: Graph, equation: Any, operands: Sequence[Operand]) -> list[str]:
    """x^2 and x^3 as XLA computes them, by multiplying."""
    power, x = equation.params["y"], operands[0]
    if power not in (2, 3):
        raise NotInOnnx(f"the power {power}")
    square = graph.add("Mul", x, x)
    return [square if power == 2 else graph.add("Mul", square, x)]


def _not_equal(graph: Graph, equation: Any, operands: Sequence[Operand]) -> list[str]:
    return [graph.add("Not", graph.add("Equal", *operands))]


def _select(graph: Graph, equation: Any, operands: Sequence[Operand]) -> list[str]:
    which, if_false, *others = operands
    if len(others) != 1 or str(equation.invars[0].aval.dtype) != "bool":
        raise NotInOnnx("a choice among more than two cases")
    return [graph.add("Where", which, others[0], if_false)]


def _clamp(graph: Graph, equation: Any, operands: Sequence[Operand]) -> list[str]:
    low, x, high = operands
    return [graph.add("Min", graph.add("Max", x, low), high)]


def _cast(graph: Graph, equation: Any, operands: Sequence[Operand]) -> list[str]:
    return [graph.add("Cast", operands[0], to=TYPES[str(equation.outvars[0].aval.dtype)])]


def _reshape(graph: Graph, equation: Any, operands: Sequence[Operand]) -> list[str]:
    if equation.params.get("dimensions") is not None:
        raise NotInOnnx("a reshape in another order")
    return [graph.reshape(operands[0], shape_of(equation.outvars[0]))]


def _squeeze(graph: Graph, equation: Any, operands: Sequence[Operand]) -> list[str]:
    return [graph.reshape(operands[0], shape_of(equation.outvars[0]))]


def _broadcast(graph: Graph, equation: Any, operands: Sequence[Operand]) -> list[str]:
    shape, kept = shape_of(equation.outvars[0]), equation.params["broadcast_dimensions"]
    sizes = [1] * len(shape)
    for size, place in zip(shape_of(equation.invars[0]), kept, strict=True):
        sizes[place] = size
    placed = graph.reshape(operands[0], tuple(sizes))
    return [placed if tuple(sizes) == shape else _expand(graph, placed, shape)]


def _expand(graph: Graph, operand: Operand, shape: tuple[int, ...]) -> str:
    return graph.add("Expand", operand, np.array(shape, np.int64))


def _transpose(graph: Graph, equation: Any, operands: Sequence[Operand]) -> list[str]:
    return [graph.add("Transpose", operands[0], perm=equation.params["permutation"])]


def _concatenate(graph: Graph, equation: Any, operands: Sequence[Operand]) -> list[str]:
    filled = [
        operand
        for operand, var in zip(operands, equation.invars, strict=True)
        if math.prod(shape_of(var))
    ]
    return [graph.add("Concat", *filled, axis=equation.params["dimension"])]


def _slice(graph: Graph, equation: Any, operands: Sequence[Operand]) -> list[str]:
    starts, ends = equation.params["start_indices"], equation.params["limit_indices"]
    strides = equation.params["strides"] or (1,) * len(starts)
    return [_cut(graph, operands[0], starts, ends, range(len(starts)), strides)]


def _cut(
    graph: Graph,
    operand: Operand,
    starts: Sequence[int],
    ends: Sequence[int],
    axes: Sequence[int],
    strides: Sequence[int],
) -> str:
    parts = [np.array(list(each), np.int64) for each in (starts, ends, axes, strides)]
    return graph.add("Slice", operand, *parts)


def _split(graph: Graph, equation: Any, operands: Sequence[Operand]) -> list[str]:
    axis, sizes = equation.params["axis"], [int(size) for size in equation.params["sizes"]]
    ends = [sum(sizes[: number + 1]) for number in range(len(sizes))]
    return [
        _cut(graph, operands[0], [end - size], [end], [axis], [1])
        for size, end in zip(sizes, ends, strict=True)
    ]


def _argmax(graph: Graph, equation: Any, operands: Sequence[Operand]) -> list[str]:
    (axis,) = equation.params["axes"]
    index = graph.add("ArgMax", operands[0], axis=axis, keepdims=0)
    return [graph.add("Cast", index, to=TYPES[str(equation.outvars[0].aval.dtype)])]


def _gather(graph: Graph, equation: Any, operands: Sequence[Operand]) -> list[str]:
    """Whole slices along one axis: `x[index]`, and `take_along_axis` of one observation."""
    numbers, sizes = equation.params["dimension_numbers"], equation.params["slice_sizes"]
    source, indices = shape_of(equation.invars[0]), shape_of(equation.invars[1])
    count, out = math.prod(indices), shape_of(equation.outvars[0])
    if len(numbers.start_index_map) != 1:
        raise NotInOnnx("a gather along several axes")
    axis = numbers.start_index_map[0]
    whole = all(
        size == full or (place == axis and size == 1) or full == 1
        for place, (size, full) in enumerate(zip(sizes, source, strict=True))
    )
    leading = axis == 0 and numbers.offset_dims == tuple(range(len(indices) - 1, len(out)))
    if not whole or sizes[axis] != 1 or not (count == 1 or leading):
        raise NotInOnnx("a gather of parts of slices")
    taken = graph.add("Gather", operands[0], graph.reshape(operands[1], (count,)), axis=axis)
    return [graph.reshape(taken, out)]


def _dot(graph: Graph, equation: Any, operands: Sequence[Operand]) -> list[str]:
    """A matrix product, if need be of matrices that are brought into order first."""
    (left_sum, right_sum), (left_batch, right_batch) = equation.params["dimension_numbers"]
    left, right = (shape_of(var) for var in equation.invars)
    left_sum, right_sum = tuple(left_sum), tuple(right_sum)
    if not left_batch and left_sum == (len(left) - 1,) and right_sum == (0,) and len(right) == 2:
        return [graph.add("MatMul", *operands)]
    left_free = [i for i in range(len(left)) if i not in (*left_sum, *left_batch)]
    right_free = [i for i in range(len(right)) if i not in (*right_sum, *right_batch)]
    batch = math.prod(left[i] for i in left_batch)
    summed = math.prod(left[i] for i in left_sum)
    rows = math.prod(left[i] for i in left_free)
    columns = math.prod(right[i] for i in right_free)
    first = graph.add("Transpose", operands[0], perm=[*left_batch, *left_free, *left_sum])
    second = graph.add("Transpose", operands[1], perm=[*right_batch, *right_sum, *right_free])
    product = graph.add(
        "MatMul",
        graph.reshape(first, (batch, rows, summed)),
        graph.reshape(second, (batch, summed, columns)),
    )
    return [graph.reshape(product, shape_of(equation.outvars[0]))]


HANDLERS: dict[str, Handler] = {
    "argmax": _argmax,
    "broadcast_in_dim": _broadcast,
    "clamp": _clamp,
    "concatenate": _concatenate,
    "convert_element_type": _cast,
    "dot_general": _dot,
    "expand_dims": _squeeze,
    "gather": _gather,
    "integer_pow": _integer_pow,
    "ne": _not_equal,
    "reshape": _reshape,
    "rsqrt": _rsqrt,
    "select_n": _select,
    "slice": _slice,
    "split": _split,
    "square": _square,
    "squeeze": _squeeze,
    "transpose": _transpose,
}
