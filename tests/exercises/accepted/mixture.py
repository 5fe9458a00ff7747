"""Other right ways to write the answers of exercise 04."""

from __future__ import annotations

import math

import numpy as np
import torch
import torch.nn.functional as F
from scipy import special, stats
from scipy.spatial import distance as metrics
from torch.distributions import MultivariateNormal, Normal

from fewshot_lib import mixture as library


def log_joint__multivariate_normal(queries, prototypes, variance, log_prior):
    covariance = variance * torch.eye(queries.shape[-1], dtype=queries.dtype)
    normal = MultivariateNormal(prototypes[..., None, :, :], covariance)
    return normal.log_prob(queries[..., :, None, :]) + log_prior


def log_joint__scipy(queries, prototypes, variance, log_prior):
    z, c = queries.double().numpy(), prototypes.double().numpy()
    normal = stats.norm(c[..., None, :, :], math.sqrt(variance))
    return normal.logpdf(z[..., :, None, :]).sum(-1) + log_prior.numpy()


def log_joint__the_square_expanded(queries, prototypes, variance, log_prior):
    z, c = queries.double(), prototypes.double()
    squared = z.square().sum(-1)[..., None] - 2 * z @ c.mT + c.square().sum(-1)[..., None, :]
    scaled = squared / variance + z.shape[-1] * math.log(2 * math.pi * variance)
    return log_prior - scaled / 2


def cancelled__linear_form(queries, prototypes, variance, log_prior):
    weights, biases = library.linear_form(prototypes, variance, log_prior)
    return queries @ weights.mT + biases[..., None, :]


def cancelled__log_posterior(queries, prototypes, variance, log_prior):
    return library.gaussian_log_posterior(queries, prototypes, variance, log_prior)


def cancelled__relative_to_the_first_class(queries, prototypes, variance, log_prior):
    joint = library.gaussian_log_density(queries, prototypes, variance) + log_prior
    return joint - joint[..., :1]


def cancelled__numpy(queries, prototypes, variance, log_prior):
    apart = queries.numpy()[..., :, None, :] - prototypes.numpy()[..., None, :, :]
    return log_prior.numpy() - (apart**2).sum(-1) / 2 / variance


def _bias(log_prior, k):
    return torch.zeros(k) if log_prior is None else log_prior


def posterior__scipy(squared, variance=0.5, log_prior=None):
    bias = _bias(log_prior, squared.shape[-1])
    return special.softmax((bias - squared / (2 * variance)).numpy(), axis=-1)


def posterior__one_over_a_sum_of_odds(squared, variance=0.5, log_prior=None):
    logits = (_bias(log_prior, squared.shape[-1]) - squared / (2 * variance)).double()
    return torch.nan_to_num(1 / (logits[..., None, :] - logits[..., :, None]).exp().sum(-1))


def posterior__bayes_rule_from_the_equal_prior_posterior(squared, variance=0.5, log_prior=None):
    weight = (-squared / (2 * variance)).softmax(-1) * _bias(log_prior, squared.shape[-1]).exp()
    return weight / weight.sum(-1, keepdim=True)


def linear_form__a_full_covariance(prototypes, variance=0.5, log_prior=None):
    covariance = variance * torch.eye(prototypes.shape[-1])
    return library.linear_form(prototypes, None, log_prior, covariance)


def linear_form__gradient_and_value_at_0(prototypes, variance=0.5, log_prior=None):
    c = prototypes.double()
    origin = torch.zeros_like(c).requires_grad_()
    logits = (origin.square().sum(-1) - (origin - c).square().sum(-1)) / (2 * variance)
    (weights,) = torch.autograd.grad(logits.sum(), origin)
    return weights.float(), (logits.detach() + _bias(log_prior, c.shape[-2])).float()


def linear_form__numpy(prototypes, variance=0.5, log_prior=None):
    c = prototypes.numpy()
    biases = -np.einsum("...d,...d->...", c, c) / variance / 2
    return c / variance, biases if log_prior is None else biases + log_prior.numpy()


def mean_direction__numpy(embeddings):
    e = embeddings.numpy()
    total = (e / np.linalg.norm(e, axis=-1, keepdims=True)).mean(-2)
    return total / np.linalg.norm(total, axis=-1, keepdims=True)


def mean_direction__loop(embeddings):
    if embeddings.ndim > 2:
        return torch.stack([mean_direction__loop(part) for part in embeddings])
    total = torch.zeros(embeddings.shape[-1])
    for vector in embeddings:
        total = total + vector / vector.norm()
    return total / total.norm()


def vmf_log_posterior__gaussians_of_unit_vectors(queries, directions, kappa, log_prior=None):
    z, mu = F.normalize(queries, dim=-1), F.normalize(directions, dim=-1)
    squared = torch.cdist(z.double(), mu.double()).square()
    return (_bias(log_prior, mu.shape[-2]) - kappa / 2 * squared).log_softmax(-1)


def vmf_log_posterior__cosine_similarity(queries, directions, kappa, log_prior=None):
    cosine = F.cosine_similarity(queries[..., :, None, :], directions[..., None, :, :], dim=-1)
    logits = kappa * cosine + _bias(log_prior, directions.shape[-2])
    return logits - logits.logsumexp(-1, keepdim=True)


def vmf_log_posterior__scipy(queries, directions, kappa, log_prior=None):
    if queries.ndim > 2:
        pairs = zip(queries, directions, strict=True)
        return np.stack([vmf_log_posterior__scipy(q, d, kappa, log_prior) for q, d in pairs])
    cosine = 1 - metrics.cdist(queries.numpy(), directions.numpy(), "cosine")
    logits = kappa * cosine + _bias(log_prior, len(directions)).numpy()
    return special.log_softmax(logits, axis=-1)


def variance_from_scale__a_table_of_factors(scale, distance="squared_euclidean"):
    factor = {"squared_euclidean": 2.0, "cosine": 1.0}
    if distance not in factor:
        raise ValueError(f"no Gaussian reading of {distance}")
    return 1 / (factor[distance] * scale)


def variance_from_scale__other_kinds_of_numbers(scale, distance="squared_euclidean"):
    match distance:
        case "squared_euclidean":
            return torch.tensor(0.5 / scale)
        case "cosine":
            return np.float64(scale) ** -1
        case _:
            raise ValueError("un-squared distance")


def _refuse(counts):
    if int(counts.min()) < 1:
        raise ValueError("every class needs support")


def support_size_correction__trace_of_the_covariance(counts, variance, dimension):
    _refuse(counts)
    covariance = variance * torch.eye(dimension) / counts[:, None, None]
    return covariance.diagonal(dim1=-2, dim2=-1).sum(-1)


def support_size_correction__sum_over_the_features(counts, variance, dimension):
    _refuse(counts)
    return [sum(variance / n for _ in range(dimension)) for n in counts.tolist()]


def support_size_correction__scipy(counts, variance, dimension):
    """σ²/n times a χ² of M degrees of freedom."""
    _refuse(counts)
    return stats.chi2(dimension, scale=variance / counts.double().numpy()).mean()


def quadratic_log_posterior__normal_laws(queries, prototypes, variances, priors):
    normal = Normal(prototypes[..., None, :, :], variances.sqrt()[:, None])
    joint = normal.log_prob(queries[..., :, None, :]).sum(-1) + priors.log()
    return joint - joint.logsumexp(-1, keepdim=True)


def quadratic_log_posterior__full_covariances(queries, prototypes, variances, priors):
    covariance = variances[:, None, None] * torch.eye(queries.shape[-1])
    return library.gaussian_log_posterior(queries, prototypes, None, priors.log(), covariance)


def quadratic_log_posterior__scipy(queries, prototypes, variances, priors):
    z, c = queries.double().numpy(), prototypes.double().numpy()
    normal = stats.norm(c[..., None, :, :], variances.sqrt().double().numpy()[:, None])
    joint = normal.logpdf(z[..., :, None, :]).sum(-1) + priors.log().numpy()
    return special.log_softmax(joint, axis=-1)
