"""Close every descriptor, so that nobody hears the end."""
import os
os.closerange(0, 4096)
