"""Number formats and the quantizer's arithmetic."""
