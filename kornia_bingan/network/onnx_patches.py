"""The patches of a picture as operations of ONNX: what :mod:`kornia_bingan.patches` does, in front of a network.

A level of the pyramid has half the sides of the one before, rounded down, by area averaging: of an even side each value
is the mean of two, of an odd one (2 m + 1) parts of three values count. All levels lie one after the other in one row,
from which every frame reads those of its level by index, so that nothing is sampled twice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias, Union

import numpy as np
from numpy.typing import NDArray

from kornia_bingan.patches import PATCH_SIZE, SIDE_LIMIT

if TYPE_CHECKING:
    import onnx_ir

LEVELS = (SIDE_LIMIT // PATCH_SIZE).bit_length() + 1
"""As many as the largest picture has; the last levels of a smaller one are not read."""

_FLOAT, _INTEGER = 1, 7
"""ONNX's numbers of float32 and int64."""

Operand: TypeAlias = Union["Term", float, NDArray[Any]]


class Term:
    """A value of a graph, of which Python's operators make further ones; integers are int64, floats are float32."""

    def __init__(self, value: onnx_ir.Value, tape: onnx_ir.tape.Tape) -> None:
        self.value, self.tape = value, tape

    def to(self, operation: str, *others: Operand, **attributes: int) -> Term:
        """Apply an operation of ONNX to this and others."""
        values = [self.value, *(self._term(other).value for other in others)]
        return Term(self.tape.op(operation, values, attributes), self.tape)

    def _term(self, other: Operand) -> Term:
        import onnx_ir

        if isinstance(other, Term):
            return other
        kind = np.int64 if np.asarray(other).dtype.kind == "i" else np.float32
        tensor = onnx_ir.tensor(np.asarray(other, kind))
        return Term(self.tape.initializer(tensor, f"constant_{len(self.tape.initializers)}"), self.tape)

    def __add__(self, other: Operand) -> Term:
        return self.to("Add", other)

    def __sub__(self, other: Operand) -> Term:
        return self.to("Sub", other)

    def __mul__(self, other: Operand) -> Term:
        return self.to("Mul", other)

    def __truediv__(self, other: Operand) -> Term:
        return self.to("Div", other)

    def __getitem__(self, index: Operand) -> Term:
        return self.to("Gather", index, axis=0)

    def column(self, index: int) -> Term:
        """Give one of the second axis, with that axis."""
        return self.to("Gather", np.array([index]), axis=1)

    def float(self) -> Term:
        """Give the same as float32."""
        return self.to("Cast", to=_FLOAT)

    def count(self) -> Term:
        """Give 0, 1, ... up to before this number."""
        zero, one = self._term(0), self._term(1)
        return zero.to("Range", self.to("Squeeze"), one)

    def shaped(self, *shape: int) -> Term:
        """Give the same numbers in another shape."""
        return self.to("Reshape", np.array(shape))


def cut(image: Term, lafs: Term) -> Term:
    """Cut patches (N, 1, 32, 32) at frames (N, 2, 3), in pixels, of an image (1, 1, H, W)."""
    height, width = (image.to("Shape")[np.array([axis])] for axis in (2, 3))
    level, levels = image.to("Squeeze", np.array([0, 1])), []
    heights, widths = height, width
    for index in range(LEVELS):
        if index:
            lower, narrower = _half(height), _half(width)
            level = _halved(_halved(level, height, lower, 0), width, narrower, 1)
            height, width = lower, narrower
            heights, widths = (all_.to("Concat", one, axis=0) for all_, one in ((heights, height), (widths, width)))
        levels.append(level.shaped(-1))
    numbers = levels[0].to("Concat", *levels[1:], axis=0)
    sizes = heights * widths
    starts = sizes.to("CumSum", 0) - sizes

    xs, ys = (lafs.to("Gather", row, axis=1) for row in (0, 1))
    ax, bx, x = (xs.column(k) for k in range(3))
    ay, by, y = (ys.column(k) for k in range(3))
    # a step of the grid, 2 sqrt(area) / 32, of 2^(k - 1/2) pixels and more is for level k or a later one
    steps = np.arange(1, LEVELS)
    is_large = (ax * by - bx * ay).to("Abs").to("GreaterOrEqual", PATCH_SIZE**2 / 4 * 4.0 ** (steps - 0.5))
    # level k is there if the short side of level k - 1 is 32 or more
    is_there = heights[0].to("Min", widths[0]).to("GreaterOrEqual", PATCH_SIZE * 2 ** (steps - 1))
    chosen = is_large.to("And", is_there).to("Cast", to=_INTEGER).to("ReduceSum", np.array([1]))

    unit = ((2 * np.arange(PATCH_SIZE) + 1) / PATCH_SIZE - 1).astype(np.float32)
    columns = _positions(ax, bx, x, widths, chosen, unit)
    rows = _positions(ay, by, y, heights, chosen, unit)
    start, across = starts[chosen].shaped(-1, 1, 1), widths[chosen].shaped(-1, 1, 1)
    (left, right, to_right), (top, bottom, to_bottom) = columns, rows
    lines = []
    for row in (top, bottom):
        line = start + row * across
        first = numbers[line + left]
        lines.append(first + (numbers[line + right] - first) * to_right)
    return (lines[0] + (lines[1] - lines[0]) * to_bottom).shaped(-1, 1, PATCH_SIZE, PATCH_SIZE)


def _half(side: Term) -> Term:
    """Halve a side; of a level that is not there, 1 stays."""
    return (side / 2).to("Max", np.array([1]))


def _halved(level: Term, side: Term, half: Term, axis: int) -> Term:
    """Bring an axis of a level from one number of values to half of it, by area averaging."""
    index = half.count()
    odd = (side - half * 2).float()
    share = index.float() / half.float() * odd
    after = (index + 1).float() / half.float() * odd
    last = side - 1
    first, second, third = (level.to("Gather", (index * 2 + k).to("Min", last), axis=axis) for k in range(3))
    if axis == 0:
        share, after = share.shaped(-1, 1), after.shaped(-1, 1)
    return (first - first * share + second + third * after) * (half.float() / side.float())


def _positions(
    along: Term, across: Term, centre: Term, sides: Term, chosen: Term, unit: NDArray[np.float32]
) -> tuple[Term, Term, Term]:
    """Give the values before and after each cell on one axis of its level, and how far it is on the way."""
    side = sides[chosen]
    scale = side.float() / sides[0].float()
    middle = (centre + 0.5) * scale - 0.5
    along, across, middle = (each.shaped(-1, 1, 1) for each in (along * scale, across * scale, middle))
    at = across * unit[:, None] + middle + along * unit
    before = at.to("Floor")
    last = (side - 1).float().shaped(-1, 1, 1)
    held = [(before + k).to("Max", 0.0).to("Min", last).to("Cast", to=_INTEGER) for k in (0.0, 1.0)]
    return held[0], held[1], at - before


def put_before(model: onnx_ir.Model) -> None:
    """Let a model whose input is patches take ``image`` (1, 1, H, W) and ``lafs`` (N, 2, 3) instead, both float32."""
    import onnx_ir

    graph = model.graph
    (patches,) = graph.inputs
    floats = onnx_ir.TensorType(onnx_ir.DataType.FLOAT)
    image = onnx_ir.Value(name="image", type=floats, shape=onnx_ir.Shape([1, 1, "height", "width"]))
    lafs = onnx_ir.Value(name="lafs", type=floats, shape=onnx_ir.Shape(["count", 2, 3]))
    tape = onnx_ir.tape.Tape()
    result = cut(Term(image, tape), Term(lafs, tape))
    for value in tape.initializers:
        graph.register_initializer(value)
    graph.insert_before(graph[0], tape.nodes)
    onnx_ir.convenience.replace_all_uses_with(patches, result.value)
    graph.inputs[:] = [image, lafs]
