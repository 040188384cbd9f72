"""Triton's kernels compiled for a GPU that is not there: as far as its assembler."""

from __future__ import annotations

from types import SimpleNamespace

import torch

POINTERS = {
    torch.float32: "*fp32", torch.bfloat16: "*bf16", torch.float16: "*fp16", torch.int64: "*i64",
    torch.int32: "*i32", torch.bool: "*i1",
}  # fmt: skip
LEAST_SHARED = 99 << 10
"""Bytes of shared memory that every GPU has for a program since Ampere."""


class Compiled:
    """Stands for a kernel: each call is compiled, and none is run."""

    def __init__(self, kernel, seen, capability):
        self.kernel, self.seen, self.capability = kernel, seen, capability

    def __getitem__(self, grid):
        assert all(int(axis) > 0 for axis in grid), grid
        return self.compile

    def compile(self, *args, **kwargs):
        import triton
        from triton.backends.compiler import GPUTarget
        from triton.compiler import ASTSource

        given = dict(zip(self.kernel.arg_names, args, strict=False))
        options = {
            name: kwargs.pop(name) for name in [*kwargs] if name not in self.kernel.arg_names
        }
        given |= kwargs
        assert set(given) == set(self.kernel.arg_names), set(self.kernel.arg_names) ^ set(given)
        signature, constants = {}, {}
        for parameter in self.kernel.params:
            value = given[parameter.name]
            if parameter.is_constexpr or value is None:
                signature[parameter.name] = "constexpr"
                constants[(parameter.num,)] = value
            elif isinstance(value, torch.Tensor):
                signature[parameter.name] = POINTERS[value.dtype]
            else:
                signature[parameter.name] = "i64" if abs(int(value)) >= 1 << 31 else "i32"
        source = ASTSource(self.kernel, signature, constants)
        target = GPUTarget("cuda", self.capability, 32)
        done = triton.compile(source, target=target, options=options)
        assert done.metadata.shared <= LEAST_SHARED, (self.kernel.__name__, done.metadata.shared)
        self.seen.append(SimpleNamespace(name=self.kernel.__name__, compiled=done))


def compile_all(module, monkeypatch, capability=90):
    """Let all kernels of a module be compiled where they are called; returns what was."""
    seen = []
    for name, kernel in vars(module).items():
        if hasattr(kernel, "arg_names") and not name.startswith("_"):
            monkeypatch.setattr(module, name, Compiled(kernel, seen, capability))
    return seen
