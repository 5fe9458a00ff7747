"""Reply with an integer of a million digits and a float that is no float."""
def class_prototypes(*a): return 10**1_000_000
def squared_euclidean(*a): return [10**400, -(10**400)]
def log_posterior(*a): return float("nan")
