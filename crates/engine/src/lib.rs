//! The engine: drains the rings, pairs and attributes events, and keeps recordings.
