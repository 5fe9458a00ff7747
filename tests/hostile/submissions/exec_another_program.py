"""Replace the process by another program that writes a reply."""
import os, sys
os.execv(sys.executable, [sys.executable, "-c", "import os; os.write(3, b'100')"])
