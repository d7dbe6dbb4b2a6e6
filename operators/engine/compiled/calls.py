"""How compiled loops call a C function by its address."""

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic


def _call_of(typing_context: Any, execute: Any, plan: Any, at: Any) -> Any:
    """Return how to call the C function `execute` (plan, in, out), given by its address, in place."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        function, plan, at = arguments
        kind = ir.FunctionType(ir.VoidType(), [plan.type, at.type, at.type])
        builder.call(builder.inttoptr(function, kind.as_pointer()), [plan, at, at])
        return context.get_dummy_value()

    return types.void(types.intp, types.intp, types.intp), generate


call: Any = intrinsic(_call_of)
