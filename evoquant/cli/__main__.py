"""`python -m evoquant.cli`."""

from evoquant.cli import main

main()
