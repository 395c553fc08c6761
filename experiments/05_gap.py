"""How far everything is from the certified optimum, and each genome space's ceiling: results/gap.jsonl and gap.md.

python experiments/05_gap.py [--render | --again SHARE | WORD …]     (--help says more)
"""

import sys

from evoquant.bench.studies_main import study_main

if __name__ == "__main__":
    sys.exit(study_main("gap"))
