"""What several test modules share; on the path as ``support`` because tests/ is."""
