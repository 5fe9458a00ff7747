"""Write into the arguments, in case they are shared with the reference."""
def class_prototypes(e, l, n):
    e.zero_(); l.zero_()
    return e
def squared_euclidean(q, p):
    q.zero_(); p.resize_(0)
    return q
def log_posterior(q, p, scale=1.0):
    q.set_(); p.set_()
    return q
