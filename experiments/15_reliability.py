"""Faults tried as often as it takes to trust it: results/reliability.jsonl and reliability.md.

python experiments/15_reliability.py kill cluster     (tests/faults/test_kill.py and test_cluster.py anew)
python experiments/15_reliability.py fuzz             (the parsers, five minutes each; needs the extra `fuzz`)

python experiments/15_reliability.py [--render | --again SHARE | WORD …]     (--help says more)
"""

import sys

from evoquant.bench.studies_main import study_main

if __name__ == "__main__":
    sys.exit(study_main("reliability"))
