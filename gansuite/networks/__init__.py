"""Networks from sizes alone. Pictures are float [N, C, H, W] in [-1, 1]; each module has what it
names."""
