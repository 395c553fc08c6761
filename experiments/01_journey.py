"""The published journey, replayed: results/journey.jsonl and results/journey.md.

python experiments/01_journey.py [--render | --again SHARE | WORD …]     (--help says more)
"""

import sys

from evoquant.bench.studies_main import study_main

if __name__ == "__main__":
    sys.exit(study_main("journey"))
