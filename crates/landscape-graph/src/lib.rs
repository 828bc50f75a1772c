//! Network architecture as data: ops, shapes, parameter names, cost, JSON.
