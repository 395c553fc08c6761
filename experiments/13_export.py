"""Champions of the example tasks on every stack that runs here: results/export.jsonl and export.md.

python experiments/13_export.py [--render | --again SHARE | WORD …]     (--help says more)
"""

import sys

from evoquant.bench.studies_main import study_main

if __name__ == "__main__":
    sys.exit(study_main("export"))
