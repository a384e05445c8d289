"""Operations of PyTorch in a cheaper form: the same functions."""
