"""Leave a daemon behind that goes on after the answer, in a session of its own."""
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        while True:
            time.sleep(0.1)
            try:
                os.write(3, b"\x00" * 64)
            except OSError:
                pass
    os._exit(0)
