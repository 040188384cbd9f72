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
    group, count, of = geometry.regions.group, geometry.regions.filled, geometry.regions.of
    m = group.size(1)
    for region in sorted(set(of.tolist())):
        stored = [i for i in range(len(x)) if of[i] == region]
        points = [order[i] for i in stored]
        for head in range(layer.heads):
            part = slice(head * c, (head + 1) * c)
            centers = []
            for number in range(m):
                near = group[region, number, : count[region, number]].tolist()
                near = sorted(points[i] for i in near)
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
