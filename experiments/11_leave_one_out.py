"""Heuristics from three tasks on the fourth, unmeasured: results/leave_one_out.jsonl and leave_one_out.md.

Takes the searches that experiments/10_own_models.py leaves in runs/own_models.

python experiments/11_leave_one_out.py [--render | --again SHARE | WORD …]     (--help says more)
"""

import sys

from evoquant.bench.studies_main import study_main

if __name__ == "__main__":
    sys.exit(study_main("leave_one_out"))
