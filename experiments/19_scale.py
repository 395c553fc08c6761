"""Clusters of separate node processes, disturbed; memory; many campaigns: results/scale.jsonl and scale.md.

python experiments/19_scale.py runs      (this part anew, the others as they are)

python experiments/19_scale.py [--render | --again SHARE | WORD …]     (--help says more)
"""

import sys

from evoquant.bench.studies_main import study_main

if __name__ == "__main__":
    sys.exit(study_main("scale"))
