"""Measured retention on a real network over five seeds: results/digits.jsonl and results/digits.md.

python experiments/04_digits.py [--render | --again SHARE | WORD …]     (--help says more)
"""

import sys

from evoquant.bench.studies_main import study_main

if __name__ == "__main__":
    sys.exit(study_main("digits"))
