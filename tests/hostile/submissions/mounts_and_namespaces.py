"""Undo the sandbox: unmount, remount, make new namespaces, change the root."""
import ctypes, os
libc = ctypes.CDLL(None, use_errno=True)
for name, call in (("umount", lambda: libc.umount2(b"/proc", 2)), ("umount tmp", lambda: libc.umount2(b"/tmp", 2)),
                   ("mount", lambda: libc.mount(b"proc", b"/tmp", b"proc", 0, None)),
                   ("unshare", lambda: libc.unshare(0x10000000)), ("chroot", lambda: libc.chroot(b"/tmp")),
                   ("setuid", lambda: libc.setuid(0))):
    if call() == 0:
        print("CANARY-ESCAPED", name)
