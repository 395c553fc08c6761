"""How fast it is on this machine, and how it scales: results/performance.jsonl and performance.md.

python experiments/14_performance.py rules scaling      (these anew, the others as they are)

python experiments/14_performance.py [--render | --again SHARE | WORD …]     (--help says more)
"""

import sys

from evoquant.bench.studies_main import study_main

if __name__ == "__main__":
    sys.exit(study_main("performance"))
