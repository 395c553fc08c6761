"""Every search over 20 seeds at one budget, on the suite's train model: results/searches.jsonl and searches.md.

python experiments/06_searches.py [--render | --again SHARE | WORD …]     (--help says more)
"""

import sys

from evoquant.bench.studies_main import study_main

if __name__ == "__main__":
    sys.exit(study_main("searches"))
