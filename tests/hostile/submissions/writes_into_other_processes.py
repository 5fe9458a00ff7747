"""Write into other processes' memory with process_vm_writev."""
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
class Vector(ctypes.Structure):
    _fields_ = [("base", ctypes.c_void_p), ("length", ctypes.c_size_t)]
data = ctypes.create_string_buffer(b"CANARY-WRITTEN")
mine = Vector(ctypes.addressof(data), len(data))
for process in range(1, 100):
    if process != os.getpid():
        got = libc.process_vm_writev(process, ctypes.byref(mine), 1, ctypes.byref(mine), 1, 0)
        if got > 0:
            print("CANARY-WRITTEN", process)
