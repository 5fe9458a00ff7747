"""Attach to the parent and to every other process with ptrace."""
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
for process in {os.getppid(), 1, 2, 3, *range(4, 200)}:
    if libc.ptrace(16, process, 0, 0) == 0 and process != os.getpid():
        print("attached CANARY-ATTACHED", process)
