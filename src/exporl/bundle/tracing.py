"""From the program that JAX makes of acting to a graph in which every random draw is an input.

Acting is traced for one observation. What depends on parameters alone is computed here and becomes
a constant; loops are unrolled; the draws of `jax.random` that the algorithms use become inputs.
"""

import collections
import dataclasses
from collections.abc import Sequence
from typing import Any

import jax
import jax.extend.core
import numpy as np

from exporl.bundle.graph import Graph, Operand
from exporl.bundle.primitives import NotInOnnx, convert, shape_of

DRAWS = {"_normal": "normal", "_gumbel": "gumbel", "_shuffle": "order"}
"""What JAX calls the programs of its draws -> what they are here: standard normal numbers, standard
Gumbel numbers, a random order of 0, 1, 2, ..."""


@dataclasses.dataclass(frozen=True)
class Key:
    """A random key: it becomes inputs where it is used."""


@dataclasses.dataclass(frozen=True)
class Missing:
    """A value that cannot be expressed: a fault only where the result needs it."""

    why: str


Value = Operand | Key | Missing


def inner(equation: Any) -> Any | None:
    """The closed jaxpr of an equation that calls another one once; None for all others."""
    for name in ("jaxpr", "call_jaxpr", "fun_jaxpr"):
        found = equation.params.get(name)
        if found is not None and equation.primitive.name != "scan":
            return found if hasattr(found, "consts") else jax.extend.core.ClosedJaxpr(found, ())
    return None


def draw_name(equation: Any, counts: collections.Counter[str]) -> str | None:
    """The input that an equation's draw becomes, such as "normal.0"; None if it draws nothing.

    Args:
        equation: of a jaxpr.
        counts: draws of each kind so far; counts this one.
    """
    kind = DRAWS.get(equation.params.get("name", ""))
    if kind is None or not any(is_key(var) for var in equation.invars):
        return None
    counts[kind] += 1
    return f"{kind}.{counts[kind] - 1}"


def is_key(var: Any) -> bool:
    """Whether a jaxpr's variable holds random keys."""
    return jax.numpy.issubdtype(var.aval.dtype, jax.dtypes.prng_key)


@dataclasses.dataclass
class Tracer:
    """Adds a jaxpr to a graph."""

    graph: Graph = dataclasses.field(default_factory=Graph)
    counts: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)

    def run(self, closed: Any, arguments: Sequence[Value]) -> list[Value]:
        """What a closed jaxpr makes of its arguments."""
        jaxpr = closed.jaxpr
        values: dict[Any, Value] = dict(zip(jaxpr.invars, arguments, strict=True))
        constants = [np.asarray(constant) for constant in closed.consts]
        values |= dict(zip(jaxpr.constvars, constants, strict=True))

        def read(var: Any) -> Value:
            return np.asarray(var.val, var.aval.dtype) if hasattr(var, "val") else values[var]

        for equation in jaxpr.eqns:
            results = self._results(equation, [read(var) for var in equation.invars])
            values |= dict(zip(equation.outvars, results, strict=True))
        return [read(var) for var in jaxpr.outvars]

    def _results(self, equation: Any, operands: Sequence[Value]) -> list[Value]:
        name = draw_name(equation, self.counts)
        if name is not None:
            (var,) = equation.outvars
            if not all(isinstance(each, Key) or _is_range(each) for each in operands):
                return [Missing("a random order of something else than 0, 1, 2, ...")]
            return [self.graph.input(name, shape_of(var), np.dtype(var.aval.dtype))]
        called = inner(equation)
        if called is not None:
            return self.run(called, operands)
        missing = next((each for each in operands if isinstance(each, Missing)), None)
        if missing is not None:
            return [missing] * len(equation.outvars)
        if all(isinstance(each, np.ndarray) for each in operands):
            return _computed(equation, operands)
        if any(isinstance(each, Key) for each in operands):
            draws = Missing(f"a draw by {equation.primitive.name!r}")
            return [Key() if is_key(var) else draws for var in equation.outvars]
        known: list[Any] = list(operands)
        if equation.primitive.name == "scan":
            return self._unrolled(equation, known)
        try:
            return [*convert(self.graph, equation, known)]
        except NotInOnnx as error:
            return [Missing(str(error))] * len(equation.outvars)

    def _unrolled(self, equation: Any, operands: Sequence[Operand]) -> list[Value]:
        """A loop of a fixed number of rounds, one after the other."""
        num_fixed, num_carried = equation.params["num_consts"], equation.params["num_carry"]
        fixed = operands[:num_fixed]
        carried: list[Value] = list(operands[num_fixed : num_fixed + num_carried])
        stacked, rounds = operands[num_fixed + num_carried :], equation.params["length"]
        if len(equation.outvars) != num_carried or equation.params["reverse"]:
            return [Missing("a loop that collects results")] * len(equation.outvars)
        for number in range(rounds):
            here = [self._entry(each, number) for each in stacked]
            carried = self.run(equation.params["jaxpr"], [*fixed, *carried, *here])
        return carried

    def _entry(self, operand: Operand, number: int) -> Operand:
        if isinstance(operand, np.ndarray):
            return np.asarray(operand[number])
        return self.graph.add("Gather", operand, np.array(number, np.int64), axis=0)


def _is_range(value: Value) -> bool:
    return isinstance(value, np.ndarray) and np.array_equal(value, np.arange(value.size))


def _computed(equation: Any, operands: Sequence[Any]) -> list[Value]:
    """The results of an equation whose operands are all known."""
    return [np.asarray(each) for each in _bound(equation, operands)]


def _bound(equation: Any, operands: Sequence[Any]) -> Sequence[Any]:
    """The results of an equation, computed by JAX."""
    found = equation.primitive.bind(*operands, **equation.params)
    return found if equation.primitive.multiple_results else [found]


def drawn(closed: Any, key: Any) -> dict[str, Any]:
    """The draws that a jaxpr, whose last argument is a key, makes with a key: input -> array."""
    found: dict[str, Any] = {}
    counts: collections.Counter[str] = collections.Counter()

    def run(closed: Any, given: Sequence[Any]) -> list[Any]:
        """Follows keys alone; what is no key is None."""
        keys = dict(zip(closed.jaxpr.invars, given, strict=True))
        for equation in closed.jaxpr.eqns:
            if not any(is_key(var) for var in equation.invars):
                continue
            operands = [keys.get(var) if is_key(var) else None for var in equation.invars]
            name, called = draw_name(equation, counts), inner(equation)
            if name is not None:
                found[name] = _draw(equation, operands)
            elif called is not None:
                keys |= dict(zip(equation.outvars, run(called, operands), strict=True))
            elif any(is_key(var) for var in equation.outvars):
                keys |= dict(zip(equation.outvars, _bound(equation, operands), strict=True))
        return [keys.get(var) if is_key(var) else None for var in closed.jaxpr.outvars]

    run(closed, [*[None] * (len(closed.jaxpr.invars) - 1), key])
    return found


def _draw(equation: Any, operands: Sequence[Any]) -> Any:
    """One draw, with 0, 1, 2, ... in the place of what is put in a random order."""
    given = [
        np.arange(shape_of(var)[0], dtype=var.aval.dtype) if each is None else each
        for var, each in zip(equation.invars, operands, strict=True)
    ]
    called = inner(equation)
    assert called is not None
    return jax.extend.core.jaxpr_as_fun(called)(*given)[0]
