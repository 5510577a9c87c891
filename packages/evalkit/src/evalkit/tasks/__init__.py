"""What can be measured: a module per task."""
