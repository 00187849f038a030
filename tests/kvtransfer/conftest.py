import os

os.environ.setdefault("NIXL_LOG_LEVEL", "FATAL")  # read at import; refused writes are what some tests are about
