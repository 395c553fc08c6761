"""Real networks: profile them, and measure them quantized."""
