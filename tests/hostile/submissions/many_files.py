"""Use up the disk's inodes with empty files."""
try:
    for number in range(10**6):
        open(f"/tmp/f{number}", "w").close()
except OSError as error:
    print(error)
