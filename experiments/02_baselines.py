"""Every strategy on every model of the seed suite: results/baselines.jsonl and results/baselines.md.

python experiments/02_baselines.py [--render | --again SHARE | WORD …]     (--help says more)
"""

import sys

from evoquant.bench.studies_main import study_main

if __name__ == "__main__":
    sys.exit(study_main("baselines"))
