"""evoquant: evolves mixed-precision bit allocations, and the heuristics behind them."""
