"""Leave a thread behind that keeps the processor busy and writes into the replies."""
import os, threading
def spin():
    while True:
        try:
            os.write(3, b"\x00")
        except OSError:
            pass
threading.Thread(target=spin, daemon=False).start()
