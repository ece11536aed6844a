"""Drafts a contract from what a robot says: a bag, a live graph, a URDF. What is drafted is for a person to read."""
