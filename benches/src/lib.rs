//! anygpu: benchmark suites and report writers.
