"""Other people's optimisers on a real network, five seeds each: results/outside_networks.jsonl and outside.md.

python experiments/17_outside_networks.py [--render | --again SHARE | WORD …]     (--help says more)
"""

import sys

from evoquant.bench.studies_main import study_main

if __name__ == "__main__":
    sys.exit(study_main("outside_networks"))
