"""Two linear maps with GELU between them, added to what came in."""

from pointcluster.ops.mlp.op import mlp

__all__ = ["mlp"]
