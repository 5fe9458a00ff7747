"""Sleep instead of answering: no CPU time is used."""
import time, signal
signal.pthread_sigmask(signal.SIG_BLOCK, range(1, 65))
time.sleep(10**6)
