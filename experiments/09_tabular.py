"""Searches on the frozen tables, 100 seeds each, beside the true optimum: results/tabular.jsonl and tabular.md.

python experiments/09_tabular.py [--render | --again SHARE | WORD …]     (--help says more)
"""

import sys

from evoquant.bench.studies_main import study_main

if __name__ == "__main__":
    sys.exit(study_main("tabular"))
