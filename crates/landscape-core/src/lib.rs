//! Geometry of weight space: control points, curves, planes, profiles, barriers, checkpoints.
