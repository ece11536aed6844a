"""What is true of one robot: its world, its scripted behaviours, its simulated sensors, its tasks."""
