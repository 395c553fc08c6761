"""Free evolution, rediscovery and random search over 20 seeds: results/free_evolution.jsonl and .md.

python experiments/03_free_evolution.py [--render | --again SHARE | WORD …]     (--help says more)
"""

import sys

from evoquant.bench.studies_main import study_main

if __name__ == "__main__":
    sys.exit(study_main("free_evolution"))
