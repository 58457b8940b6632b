//! Events and captures, the shared-memory ring that carries them, and the control messages beside it.
