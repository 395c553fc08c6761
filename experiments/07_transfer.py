"""Heuristics that carry over, 20 seeds each: results/transfer.jsonl, unseen.jsonl, test_log.jsonl and transfer.md.

python experiments/07_transfer.py [--render | --again SHARE | WORD …]     (--help says more)
"""

import sys

from evoquant.bench.studies_main import study_main

if __name__ == "__main__":
    sys.exit(study_main("transfer"))
