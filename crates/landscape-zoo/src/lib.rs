//! Architectures as graphs with PyTorch parameter names, and data sets.
