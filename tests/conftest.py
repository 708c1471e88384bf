"""Before any import: kernels run in Triton's interpreter; no test uses the cache of graphs in the home folder."""

import os

os.environ["TRITON_INTERPRET"] = "1"
os.environ["MINIFLEMING_CACHE"] = ""
