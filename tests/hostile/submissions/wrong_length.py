"""Return a different shape at every call."""
import torch
count = [0]
def class_prototypes(*a):
    count[0] += 1
    return torch.zeros(count[0])
squared_euclidean = log_posterior = class_prototypes
