"""What ships for checking rather than for use.

    python -m djepa.testing.golden DIR     compare with recorded numbers of the reference implementations
"""
