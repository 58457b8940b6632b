//! The model of L1: its symbols, its structure layout, who is running.
