"""No test reads or writes the cache of graphs in the home folder."""

import os

os.environ["MINIFLEMING_CACHE"] = ""
