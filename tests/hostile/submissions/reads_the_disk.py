"""Search every readable file for the canary and print what is found."""
import os
count = 0
for folder, folders, files in os.walk("/"):
    folders[:] = [f for f in folders if os.path.join(folder, f) not in ("/usr", "/sys") and "site-packages" not in folder]
    for name in files:
        path = os.path.join(folder, name)
        count += 1
        if count > 20_000:
            break
        try:
            with open(path, errors="replace") as file:
                text = file.read(2000)
            if "CANARY" in text.upper():
                print(path, text)
        except OSError:
            pass
