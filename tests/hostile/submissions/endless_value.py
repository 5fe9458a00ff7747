"""Return a list that contains itself, and a dict whose keys have a mind of their own."""
def class_prototypes(*a):
    loop = []
    loop.append(loop)
    return loop
class Key:
    def __str__(self):
        while True: pass
def squared_euclidean(*a): return {Key(): 1}
def log_posterior(*a): return (object() for _ in iter(int, 1))
