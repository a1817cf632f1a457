"""What is served differently while a segment drifts: candidates, evidence, choice; all pure."""
