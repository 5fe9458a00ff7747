"""Recurse until the interpreter's own stack is gone."""
import sys
sys.setrecursionlimit(10**9)
def class_prototypes(*a): return class_prototypes(*a)
squared_euclidean = log_posterior = class_prototypes
