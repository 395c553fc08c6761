"""From a profile to arrays, and from an allocation to retention, compression and fitness."""
