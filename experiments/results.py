"""Every table and figure of README.md and results/, from the committed rows; a random share of them measured again.

python experiments/results.py            (`make results`)
python experiments/results.py --full     (`make results-full`: every row measured anew; hours, goes on where it stopped)
"""

import sys

from evoquant.bench.studies_main import results_main

if __name__ == "__main__":
    sys.exit(results_main())
