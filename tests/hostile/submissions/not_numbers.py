"""Reply with NaN, infinity and complex numbers."""
import torch
def class_prototypes(e, l, n): return torch.full((*e.shape[:-2], n, e.shape[-1]), float("nan"))
def squared_euclidean(q, p): return torch.full((*q.shape[:-1], p.shape[-2]), float("inf"))
def log_posterior(q, p, scale=1.0): return torch.full((*q.shape[:-1], p.shape[-2]), 1j)
