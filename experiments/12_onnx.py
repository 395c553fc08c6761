"""PyTorch and ONNX Runtime side by side, 40 passes each: results/onnx.jsonl and onnx.md.

python experiments/12_onnx.py [--render | --again SHARE | WORD …]     (--help says more)
"""

import sys

from evoquant.bench.studies_main import study_main

if __name__ == "__main__":
    sys.exit(study_main("onnx"))
