"""The four steps of the operator in plain loops."""

from __future__ import annotations

import math

import torch


def loop_cluster(layer, x, geometry):
    """What `layer` should answer for `x`, in the caller's order, and its assignment."""
    width, c = layer.heads * layer.head_channels, layer.head_channels
    out = torch.zeros(len(x), width, dtype=x.dtype)
    index = torch.zeros(len(x), layer.heads, dtype=torch.int64)
    order = list(range(len(x))) if geometry.order is None else geometry.order.tolist()
    fv = layer.fv(x)
    f, v = fv[:, :width], fv[:, width:]
    alpha, beta = layer.alpha.item(), layer.beta.item()
    m = geometry.num_centers
    for region in sorted(set(geometry.region.tolist())):
        points = [order[i] for i in range(len(x)) if geometry.region[i] == region]
        for head in range(layer.heads):
            part = slice(head * c, (head + 1) * c)
            centers = []
            for number in range(region * m, region * m + m):
                near = [order[i] for i in geometry.grouping[number].tolist()]
                if layer.fuse is not None:
                    fused = layer.fuse(fv[near].reshape(1, -1))[0]
                    centers.append((fused[:width][part], fused[width:][part]))
                else:
                    near = sorted(set(near))  # a small region repeats its points
                    centers.append((f[near][:, part].mean(0), v[near][:, part].mean(0)))
            scores, total, weight = {}, [g.clone() for _, g in centers], [1.0] * m
            for n in points:
                cosine = [
                    (torch.dot(cm, f[n, part]) / (cm.norm() * f[n, part].norm())).item()
                    for cm, _ in centers
                ]
                s = [1 / (1 + math.exp(-(beta + alpha * cos))) for cos in cosine]
                a = max(range(m), key=lambda j: (s[j], -j))
                scores[n] = (a, s[a])
                total[a] = total[a] + s[a] * v[n, part]
                weight[a] += s[a]
            for n in points:
                a, s = scores[n]
                out[n, part] = s * total[a] / weight[a]
                index[n, head] = region * m + a
    return layer.proj(out), index
