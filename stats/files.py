"""Files written whole or not at all, and their checksums."""

import hashlib
import os
from pathlib import Path


class atomic_write:
    """`with atomic_write(path) as file:` a binary file that replaces `path` if all goes well."""

    def __init__(self, path):
        self.path = Path(path)
        self.part = self.path.with_name(f".{self.path.name}.{os.getpid()}.part")

    def __enter__(self):
        self.file = open(self.part, "wb")
        return self.file

    def __exit__(self, kind, error, trace):
        try:
            with self.file as file:
                if error is None:
                    file.flush()
                    os.fsync(file.fileno())  # a crash must not leave an empty file under the name
            if error is None:
                os.replace(self.part, self.path)
        finally:
            self.part.unlink(missing_ok=True)


def sha256(path):
    """The hex digest of a file's bytes."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
