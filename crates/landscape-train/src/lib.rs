//! One training loop for endpoints, curves and simplexes; candle models by Bound.
