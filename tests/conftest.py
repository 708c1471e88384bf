"""Before any import: one thread (tensors here are small, and threads that wait for a busy core cost more than they
give), kernels in Triton's interpreter, no cache of graphs from the home folder."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ["TRITON_INTERPRET"] = "1"
os.environ["MINIFLEMING_CACHE"] = ""
