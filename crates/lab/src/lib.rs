//! Fetches and boots real hypervisors for demos and tests.
