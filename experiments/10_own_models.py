"""evoquant beside today's ways on four real networks, five seeds each: results/own_models.jsonl and own_models.md.

python experiments/10_own_models.py [--render | --again SHARE | WORD …]     (--help says more)
"""

import sys

from evoquant.bench.studies_main import study_main

if __name__ == "__main__":
    sys.exit(study_main("own_models"))
