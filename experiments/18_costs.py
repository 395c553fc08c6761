"""Cost tables against really exported networks: results/costs.jsonl and costs.md.

python experiments/18_costs.py mlp      (these anew, the others as they are)

python experiments/18_costs.py [--render | --again SHARE | WORD …]     (--help says more)
"""

import sys

from evoquant.bench.studies_main import study_main

if __name__ == "__main__":
    sys.exit(study_main("costs"))
