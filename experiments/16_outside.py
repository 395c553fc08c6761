"""Other people's optimisers beside ours, 20 seeds each: results/outside.jsonl and outside.md.

python experiments/16_outside.py [--render | --again SHARE | WORD …]     (--help says more)
"""

import sys

from evoquant.bench.studies_main import study_main

if __name__ == "__main__":
    sys.exit(study_main("outside"))
