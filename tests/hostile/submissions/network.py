"""Open connections, by address and over every kind of socket."""
import socket
for kind in (socket.AF_INET, socket.AF_INET6, socket.AF_UNIX):
    try:
        s = socket.socket(kind)
        s.settimeout(1)
        s.connect("/tmp/x" if kind == socket.AF_UNIX else ("127.0.0.1", 22))
        print("CANARY-CONNECTED", kind)
    except OSError as error:
        print(kind, error)
