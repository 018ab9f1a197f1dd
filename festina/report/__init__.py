"""Results for people: statistics, tables."""
