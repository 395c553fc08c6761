"""NSGA-II's Pareto front beside the exact one, on each suite model: results/hypervolume.jsonl and hypervolume.md.

python experiments/08_hypervolume.py [--render | --again SHARE | WORD …]     (--help says more)
"""

import sys

from evoquant.bench.studies_main import study_main

if __name__ == "__main__":
    sys.exit(study_main("hypervolume"))
