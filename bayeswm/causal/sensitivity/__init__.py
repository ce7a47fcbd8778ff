"""How far an effect can be doubted: hidden confounders, refutation."""
