"""What people read: tables and the report's data, made from a run directory."""
