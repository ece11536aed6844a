"""What tests share: robots, bags, graphs and learners to test with."""
