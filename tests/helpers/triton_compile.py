"""Compile the kernels that a call would launch, for any GPU, and read their resources."""

import re
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from triton.runtime.jit import JITFunction

TYPES = {torch.float32: "fp32", torch.bfloat16: "bf16", torch.float16: "fp16", torch.int64: "i64",
         torch.complex64: "fp32", torch.uint8: "u8", torch.int32: "i32"}  # fmt: skip
OPTIONS = ("num_warps", "num_stages")


@dataclass
class Compiled:
    """A compiled kernel. registers and spilled bytes are known for NVIDIA GPUs, and 0 for others."""

    name: str
    registers: int
    spilled: int
    shared: int
    asm: dict[str, Any]


def source(kernel: JITFunction, arguments: dict[str, Any]) -> ASTSource:
    """The kernel specialised as by the runtime: pointers and integers divisible by 16, ones and None as constants."""
    signature, constants, attributes = {}, {}, {}
    for index, parameter in enumerate(kernel.params):
        value = arguments[parameter.name]
        specialised = not parameter.do_not_specialize
        if parameter.is_constexpr or value is None or (specialised and type(value) is int and value == 1):
            signature[parameter.name], constants[parameter.name] = "constexpr", value
        elif isinstance(value, Tensor):
            signature[parameter.name] = "*" + TYPES[value.dtype]
            if value.storage_offset() * value.element_size() % 16 == 0:
                attributes[(index,)] = [["tt.divisibility", 16]]
        elif isinstance(value, float):
            signature[parameter.name] = "fp32"
        else:
            signature[parameter.name] = "i32" if abs(value) < 2**31 else "i64"
            if specialised and value % 16 == 0:
                attributes[(index,)] = [["tt.divisibility", 16]]
    return ASTSource(kernel, signature, constants, attributes)


def compile_launch(kernel: JITFunction, target: GPUTarget, *args: Any, **kwargs: Any) -> Compiled:
    names = [parameter.name for parameter in kernel.params]
    options = {name: kwargs.pop(name) for name in OPTIONS if name in kwargs}
    made = triton.compile(source(kernel, dict(zip(names, args)) | kwargs), target=target, options=options)
    registers, spilled = nvidia_resources(made.asm["ptx"], target) if target.backend == "cuda" else (0, 0)
    return Compiled(kernel.__name__, registers, spilled, made.metadata.shared, made.asm)


def nvidia_resources(ptx: str, target: GPUTarget) -> tuple[int, int]:
    """(registers, bytes of spill stores) as the assembler of Triton's package reports them."""
    ptxas = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "ptxas"
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "kernel.ptx").write_text(ptx)
        architecture = re.search(r"\.target (sm_\w+)", ptx)
        assert architecture is not None
        command = [str(ptxas), "-v", f"--gpu-name={architecture[1]}", "kernel.ptx", "-o", "kernel.cubin"]
        output = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True).stderr
    registers, spilled = re.search(r"Used (\d+) registers", output), re.search(r"(\d+) bytes spill stores", output)
    assert registers is not None
    return int(registers[1]), int(spilled[1]) if spilled else 0


@contextmanager
def compiling(target: GPUTarget) -> Iterator[list[Compiled]]:
    """Launches compile for `target` and compute nothing. The list gets one entry per kernel."""
    kernels: list[Compiled] = []
    known: dict[Any, Compiled] = {}
    run = JITFunction.run

    def compile_only(self: JITFunction, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> None:
        key = self.__name__, repr([(x.dtype if isinstance(x, Tensor) else x) for x in args]), repr(kwargs)
        if key not in known:
            known[key] = compile_launch(self, target, *args, **kwargs)
            kernels.append(known[key])

    JITFunction.run = compile_only  # pyright: ignore
    try:
        yield kernels
    finally:
        JITFunction.run = run


def compiled(target: GPUTarget, call: Callable[[], Any]) -> list[Compiled]:
    with compiling(target) as kernels:
        call()
    return kernels
